"""Child processes: started, waited for, stopped, and cleaned up after."""
