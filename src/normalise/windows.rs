//! The log source of structured events: what they say themselves, else what a Windows channel and event id stand for in
//! the Sigma taxonomy (semantics X3).

use std::sync::Arc;

use super::tape::{Kind, View};
use crate::model::LogSource;

/// Where events carry channel and event id: flat, as `evtx_dump` nests them, as winlogbeat does.
const PLACES: [(&str, &str); 3] = [("Channel", "EventID"), ("Event.System.Channel", "Event.System.EventID"), ("winlog.channel", "winlog.event_id")];

/// How the keys at the top begin that lead to one of them.
const CHANNELS: [&str; 3] = ["Channel", "Event", "winlog"];

/// Channels in lower case, without their `Microsoft-Windows-`, and Sigma's services.
const SERVICES: &[(&str, &str)] = &[
    ("application", "application"),
    ("applocker/exe and dll", "applocker"),
    ("applocker/msi and script", "applocker"),
    ("applocker/packaged app-deployment", "applocker"),
    ("applocker/packaged app-execution", "applocker"),
    ("appxdeploymentserver/operational", "appxdeployment-server"),
    ("bits-client/operational", "bits-client"),
    ("capi2/operational", "capi2"),
    ("certificateservicesclient-lifecycle-system/operational", "certificateservicesclient-lifecycle-system"),
    ("codeintegrity/operational", "codeintegrity-operational"),
    ("diagnosis-scripted/operational", "diagnosis-scripted"),
    ("dns server", "dns-server"),
    ("dns client events/operational", "dns-client"),
    ("dns-server/analytical", "dns-server-analytic"),
    ("driverframeworks-usermode/operational", "driver-framework"),
    ("iis-configuration/operational", "iis-configuration"),
    ("ldap-client/debug", "ldap"),
    ("lsa/operational", "lsa-server"),
    ("msexchange management", "msexchange-management"),
    ("ntlm/operational", "ntlm"),
    ("openssh/operational", "openssh"),
    ("powershell/operational", "powershell"),
    ("powershellcore/operational", "powershell"),
    ("printservice/admin", "printservice-admin"),
    ("printservice/operational", "printservice-operational"),
    ("security", "security"),
    ("security-mitigations/kernel mode", "security-mitigations"),
    ("security-mitigations/user mode", "security-mitigations"),
    ("shell-core/operational", "shell-core"),
    ("smbclient/connectivity", "smbclient-connectivity"),
    ("smbclient/security", "smbclient-security"),
    ("smbserver/connectivity", "smbserver-connectivity"),
    ("sysmon/operational", "sysmon"),
    ("system", "system"),
    ("taskscheduler/operational", "taskscheduler"),
    ("terminalservices-localsessionmanager/operational", "terminalservices-localsessionmanager"),
    ("windows defender/operational", "windefend"),
    ("windows firewall with advanced security/firewall", "firewall-as"),
    ("windows powershell", "powershell-classic"),
    ("wmi-activity/operational", "wmi"),
];

/// What an object's fields say of its log source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said<'e> {
    /// `product`
    pub product: Option<&'e str>,
    /// `category`
    pub category: Option<&'e str>,
    /// `service`
    pub service: Option<&'e str>,
}

impl From<Said<'_>> for LogSource {
    fn from(said: Said<'_>) -> LogSource {
        LogSource { product: said.product.map(Arc::from), category: said.category.map(Arc::from), service: said.service.map(Arc::from) }
    }
}

/// What an object says itself of its log source, and whether a channel may tell more.
fn own(object: View<'_>) -> (Said<'_>, bool) {
    let (mut own, mut channel) = (Said::default(), false);
    for (key, _, value) in object.entries() {
        let text = || value.text().filter(|text| !text.is_empty());
        match key {
            "product" => own.product = text(),
            "category" => own.category = text(),
            "service" => own.service = text(),
            _ => channel |= CHANNELS.iter().any(|head| key.starts_with(head)),
        }
    }
    (own, channel)
}

/// The `product`, `category` and `service` of an object.
pub(super) fn said(object: View<'_>) -> Said<'_> {
    own(object).0
}

/// The log source of an object: its own `product`, `category` and `service`, each else by channel and event id.
pub(super) fn logsource(object: View<'_>) -> Said<'_> {
    let (own, channel) = own(object);
    let may_be_windows = own.product.is_none_or(|product| product.eq_ignore_ascii_case("windows"));
    let told = own.product.is_some() && own.category.is_some() && own.service.is_some();
    let derived = if channel && may_be_windows && !told { by_channel(object) } else { None }.unwrap_or_default();
    Said { product: own.product.or(derived.product), category: own.category.or(derived.category), service: own.service.or(derived.service) }
}

fn by_channel(object: View<'_>) -> Option<Said<'static>> {
    let (channel, id) = PLACES.iter().find_map(|(channel, id)| Some((object.lookup(channel)?.text()?, object.lookup(id))))?;
    let without = strip(channel, "microsoft-windows-");
    let name = without.unwrap_or(channel);
    let service = SERVICES.iter().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, service)| *service);
    // A channel that is not known may be another product's.
    without.or(service)?;
    let category = service.zip(id.and_then(event_id)).and_then(|(service, id)| category(service, id));
    Some(Said { product: Some("windows"), category, service })
}

/// The text behind a beginning, in any case of letters.
fn strip<'a>(text: &'a str, head: &str) -> Option<&'a str> {
    text.get(..head.len()).filter(|own| own.eq_ignore_ascii_case(head)).and_then(|_| text.get(head.len()..))
}

/// A number, its text, or the text of an XML element with attributes.
fn event_id(value: View<'_>) -> Option<u64> {
    match value.kind() {
        Kind::Number(digits) => digits.parse().ok(),
        Kind::Text(text) => text.parse().ok(),
        Kind::Object => event_id(value.get("#text")?),
        _ => None,
    }
}

fn category(service: &str, id: u64) -> Option<&'static str> {
    Some(match (service, id) {
        ("sysmon", 1) | ("security", 4688) => "process_creation",
        ("sysmon", 2) => "file_change",
        ("sysmon", 3) => "network_connection",
        ("sysmon", 4 | 16) => "sysmon_status",
        ("sysmon", 5) => "process_termination",
        ("sysmon", 6) => "driver_load",
        ("sysmon", 7) => "image_load",
        ("sysmon", 8) => "create_remote_thread",
        ("sysmon", 9) => "raw_access_thread",
        ("sysmon", 10) => "process_access",
        ("sysmon", 11) => "file_event",
        // A key that was added, or one that was deleted.
        ("sysmon", 12) => "registry_event",
        ("sysmon", 13) => "registry_set",
        ("sysmon", 14) => "registry_rename",
        ("sysmon", 15) => "create_stream_hash",
        ("sysmon", 17 | 18) => "pipe_created",
        ("sysmon", 19..=21) => "wmi_event",
        ("sysmon", 22) => "dns_query",
        ("sysmon", 23 | 26) => "file_delete",
        ("sysmon", 24) => "clipboard_change",
        ("sysmon", 25) => "process_tampering",
        ("sysmon", 27) => "file_block_executable",
        ("sysmon", 28) => "file_block_shredding",
        ("sysmon", 29) => "file_executable_detected",
        ("sysmon", 255) => "sysmon_error",
        ("powershell", 4103) => "ps_module",
        ("powershell", 4104) => "ps_script",
        ("powershell-classic", 400) => "ps_classic_start",
        ("powershell-classic", 600) => "ps_classic_provider_start",
        ("powershell-classic", 800) => "ps_classic_script",
        _ => return None,
    })
}
