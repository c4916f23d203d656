"""The plain rows between packages: `values` checks single values, `rows` makes rows of arguments and merges them."""
