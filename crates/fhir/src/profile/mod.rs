//! Profiles, extensions and terminology of packages, ready for checking.
//!
//! Takes packages, gives a [`Library`]: definitions by canonical, each compiled at its first use, so that thousands that
//! nobody claims cost nothing. Does no I/O: who calls brings the packages.

mod bindings;
mod compile;
mod conditions;
pub(crate) mod element;
mod layer;
pub(crate) mod library;
mod member;
pub(crate) mod releases;
mod terminology;
pub(crate) mod value;

pub use library::{Library, LibraryError};
