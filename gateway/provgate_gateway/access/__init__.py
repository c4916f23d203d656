"""Who may call, how often, and with which certificate the gateway answers."""
