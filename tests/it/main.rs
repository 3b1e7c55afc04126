//! Stories of the product, on real processes over loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod access;
mod administration;
mod applications;
mod backups;
mod broken_logs;
mod certificates;
mod changes;
mod clocks;
mod deployed;
mod devices;
mod domains;
mod gate;
mod hostile_http2;
mod hostile_origins;
mod http3;
mod judgements;
mod kinds;
mod lifetimes;
mod limits;
mod liveness;
mod log;
mod many;
mod memory;
mod places;
mod protocols;
mod providers;
mod publishing;
mod siem;
mod sign_in;
mod signals;
mod starts;
mod tidy;
mod tls;
mod traces;
mod websockets;
mod whole_files;
mod words;
