"""Commands for operators: `provgate config`, `provgate doctor` and `provgate top`."""
