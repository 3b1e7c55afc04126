//! How large a request head may be, for every version of HTTP.

/// All fields of a head, names and values.
pub const HEADER_BYTES_MAX: usize = 48 * 1024;
pub const HEADER_FIELDS_MAX: usize = 100;
pub const HEADER_FIELD_BYTES_MAX: usize = 16 * 1024;
/// Path and query.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// One line of an HTTP/1 head; whoever reads ahead of it reads no further.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
