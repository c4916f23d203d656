"""Version 1 of the contract: messages, service and stubs, generated from the .proto files beside them."""
