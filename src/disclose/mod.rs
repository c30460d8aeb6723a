//! disclose
