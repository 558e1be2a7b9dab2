//! What the conformance tests and the fuzz targets share: a guest that does as it is told.

pub mod puppet;
