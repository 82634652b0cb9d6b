//! Who an event is about: what field values are, and which MAC, address, host name and access point belong together (C9, C15).
//!
//! ```text
//! DHCPACK, neighbour, association ─► View ─► at the time of an event: address or name ─► MAC ─► name, address, access point
//! ```

mod buckets;
mod value;
mod view;

pub use buckets::{Buckets, Remains};
pub use value::{Overlay, canonical, canonical_text, colons, field, is_host_field, mac_digits};
pub use view::{Ask, MAX_KNOWN, View, teaches};
