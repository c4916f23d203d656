"""Who may call, and how much: principals, tokens and certificates, roles, limits, and the control that applies them."""
