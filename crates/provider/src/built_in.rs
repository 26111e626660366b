//! The files of `providers/`, embedded by `build.rs`.

/// File name and text, in the order of the names.
pub(crate) const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));
