//! Nothing but tests: see tests/oracle.
