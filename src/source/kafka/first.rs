//! One member of the group reads, and the others wait to take its place: a window needs all of a group's events, wherever they stand.
//!
//! The one that reads is the group's only member. Who waits asks now and then whether the group has members, and joins when it has none; of
//! those that join at the same moment, the one that was first to be made stays. Members that share partitions, and other programs, count as
//! ones that were there before.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;

use super::member::Member;
use crate::clock;

/// How often one that waits asks.
const EVERY: Duration = Duration::from_secs(2);
/// How long the cluster may take to answer.
const WITHIN: Duration = Duration::from_secs(3);

/// What a client that is made now is called: `name`, and when it was made, if it is to be the only one.
pub(super) fn client_id(name: &str, share: bool) -> String {
    if share { name.to_owned() } else { format!("{name}@{:020}", clock::now().0.unsigned_abs()) }
}

/// Another member of the group.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Other {
    /// When it was made, as it says; nothing where it does not wait for others.
    made: String,
    client_id: String,
    host: String,
}

impl Other {
    fn new(client_id: &str, host: &str) -> Other {
        let made = client_id.rsplit_once('@').map_or("", |(_, made)| made);
        Other { made: made.to_owned(), client_id: client_id.to_owned(), host: host.to_owned() }
    }
}

impl Member<'_> {
    /// Whether nobody was in the group before us. It is asked while nothing is read: who reads stays.
    pub(super) fn is_first(&mut self) -> bool {
        if self.consumer.config.share || !self.parts.is_empty() {
            return true;
        }
        let own = Other::new(&self.client_id, "");
        match self.asked(Member::others) {
            Ok(others) => others.iter().all(|other| (&other.made, &other.client_id) > (&own.made, &own.client_id)),
            Err(error) => {
                self.look.complain(error);
                false
            }
        }
    }

    /// Who reads while we wait, in one sentence; `None` when we are to read.
    pub(super) fn reads_instead(&mut self) -> Result<Option<String>, String> {
        if self.consumer.config.share || self.look.is_subscribed() {
            return Ok(None);
        }
        let others = self.asked(Member::others)?;
        Ok(others.into_iter().min().map(|other| {
            self.look.within(EVERY);
            let (group, host) = (&self.consumer.config.group, other.host.trim_start_matches('/'));
            format!("`{}` of {host} reads for the consumer group `{group}`; this opmas waits to take its place", other.client_id)
        }))
    }

    /// Gives back what the group has just given, and leaves it.
    pub(super) fn stand_aside(&mut self, given: &TopicPartitionList) {
        self.say_failed("take partitions", self.client.incremental_assign(given).and_then(|()| self.client.pause(given)));
        self.client.unsubscribe();
        self.look.left(Instant::now() + EVERY);
    }

    /// The group's members without those that are ours: one that we were before we were killed is in the group until its session ends.
    fn others(&self) -> Result<Vec<Other>, String> {
        let group = &self.consumer.config.group;
        let said = self.client.fetch_group_list(Some(group), WITHIN);
        let said = said.map_err(|error| format!("who is in the consumer group `{group}` cannot be found out: {error}"))?;
        let members = said.groups().iter().filter(|found| found.name() == group).flat_map(|found| found.members());
        let name = self.consumer.name(self.outlet);
        let is_ours = |id: &str| id.rsplit_once('@').map_or(id, |(name, _)| name) == name;
        Ok(members.filter(|member| !is_ours(member.client_id())).map(|member| Other::new(member.client_id(), member.client_host())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_made_first_comes_first_and_who_does_not_wait_before_all() {
        let others = ["opmas-b-k@00000000000000000002", "opmas-a-k@00000000000000000010", "consumer-1"].map(|id| Other::new(id, "/::1"));
        assert_eq!(others.iter().min().unwrap().client_id, "consumer-1");
        assert_eq!(others[..2].iter().min().unwrap().client_id, "opmas-b-k@00000000000000000002");
        let own = client_id("opmas-a-k", false);
        assert!(own.starts_with("opmas-a-k@0") && own < client_id("opmas-a-k", false) && client_id("opmas-a-k", true) == "opmas-a-k");
    }
}
