//! Logging and trace spans shared by the guest's processes.
