"""What follows once a package is stored or refused: reply, then delivery ack."""
