//! Rules that are in no file: what opmas says of its own bounds (semantics C12).

/// A rule of opmas itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its id and name, which playbooks and routes may ask for (stable).
    pub id: &'static str,
    /// One line.
    pub title: &'static str,
}

/// Correlation forgot groups, because there were too many.
pub const GROUPS_EVICTED: BuiltIn = BuiltIn { id: "opmas_correlation_evicted", title: "Correlation has forgotten groups at its bound of memory" };
/// Correlation forgot a group's oldest entries, because it had too many.
pub const ENTRIES_DROPPED: BuiltIn = BuiltIn { id: "opmas_correlation_entries_dropped", title: "Correlation has forgotten events at its bound of memory" };
/// Alerts were not made, because too many wait for a channel.
pub const DELIVERIES_DROPPED: BuiltIn = BuiltIn { id: "opmas_deliveries_dropped", title: "Alerts were not made because too many wait" };

/// A person set another posture, or its time is over.
pub const POSTURE_CHANGED: BuiltIn = BuiltIn { id: "opmas_posture_changed", title: "The posture was changed" };

/// All of them.
pub const BUILT_IN: [BuiltIn; 4] = [GROUPS_EVICTED, ENTRIES_DROPPED, DELIVERIES_DROPPED, POSTURE_CHANGED];
