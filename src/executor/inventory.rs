//! `devices.toml`: read, and written by `opmas device add` with comments kept.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::diag::{self, Diagnostic, Place};
use crate::model::{Device, Inventory};

/// Longest name of a device.
const MAX_NAME: usize = 64;
/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// Reads an inventory; a file that does not exist is an empty one.
///
/// # Errors
/// The file cannot be read, is not TOML of this form, or a device in it is not valid; with the place and the remedy.
pub fn load(path: &Path) -> Result<Inventory, Diagnostic> {
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => parse(&name, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Inventory::default()),
        Err(error) => Err(Diagnostic::new(name, Place::default(), format!("cannot be read: {error}"))),
    }
}

/// Reads the text of an inventory; `name` is the file as the user knows it.
///
/// # Errors
/// As [`load`].
pub fn parse(name: &str, text: &str) -> Result<Inventory, Diagnostic> {
    let inventory: Inventory = diag::from_toml(name, text)?;
    let mut seen = BTreeSet::new();
    for device in &inventory.devices {
        let wrong = |message: String| Diagnostic::new(name, Place::default(), format!("device `{}`: {message}", device.name.escape_default()));
        validate(device).map_err(|e| wrong(e.to_string()))?;
        if !seen.insert(&device.name) {
            return Err(wrong("this name is there twice; give each device a name of its own".to_owned()));
        }
    }
    Ok(inventory)
}

/// What is wrong with a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// See [`Device::name`].
    #[error("a name has 1 to {MAX_NAME} of the characters a-z 0-9 . _ - and begins with a letter or digit")]
    Name,
    /// ssh would take it for an option, or it is no host.
    #[error("`host` is an address or a host name: letters, digits, `.`, `-`, `_`, `:`; it begins with a letter, digit or `:`")]
    Host,
    /// ssh would take it for an option, or it is no user.
    #[error("`user` is a user name: letters, digits, `.`, `_`, `-`; it begins with a letter, digit or `_`")]
    User,
    /// Port 0.
    #[error("`port` is a number from 1 to 65535")]
    Port,
}

/// Checks what goes into file names, command lines and `known_hosts`.
///
/// # Errors
/// See [`DeviceError`].
pub fn validate(device: &Device) -> Result<(), DeviceError> {
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let host = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
    let user = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is = |text: &str, most: usize, first: &str, allowed: &dyn Fn(char) -> bool| {
        let starts = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || first.contains(c));
        starts && text.len() <= most && text.chars().all(allowed)
    };
    if !is(&device.host, MAX_HOST, ":", &host) {
        return Err(DeviceError::Host);
    }
    if !is(&device.user, MAX_NAME, "_", &user) {
        return Err(DeviceError::User);
    }
    if !is(&device.name, MAX_NAME, "", &name) {
        return Err(DeviceError::Name);
    }
    if device.port == 0 { Err(DeviceError::Port) } else { Ok(()) }
}

fn same_place(one: &Device, other: &Device) -> bool {
    one.host.eq_ignore_ascii_case(&other.host) && one.port == other.port && one.user == other.user
}

/// The text of an inventory with one more device; everything that was there stays as it was, comments too. The same text when the
/// device is there already under this name, with this user, host and port.
///
/// # Errors
/// The text is not valid, or has another device with this name, or this user, host and port under another name.
pub fn with_device(name: &str, text: &str, device: &Device) -> Result<String, Diagnostic> {
    let wrong = |message: String| Diagnostic::new(name, Place::default(), message);
    validate(device).map_err(|e| wrong(format!("device `{}`: {e}", device.name.escape_default())))?;
    let there = parse(name, text)?;
    let place = |d: &Device| format!("{}@{}:{}", d.user, d.host, d.port);
    if let Some(other) = there.by_name(&device.name) {
        if same_place(other, device) {
            return Ok(text.to_owned());
        }
        return Err(wrong(format!("device `{}` is there already, as {}", device.name, place(other))).help("choose another name with --name"));
    }
    if let Some(other) = there.devices.iter().find(|d| same_place(d, device)) {
        let help = format!("to pin its key anew, run `{}`", super::enroll::command(other));
        return Err(wrong(format!("{} is there already, as `{}`", place(device), other.name)).help(help));
    }
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| wrong(e.message().to_owned()))?;
    let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
    let list = document.entry("device").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let list = list.as_array_of_tables_mut().ok_or_else(|| wrong("`device` is written inline".to_owned()).help("write each device as a [[device]] table"))?;
    let mut table = table(device);
    // A comment at the end of the file stays where it is: before what is added.
    let end = if trailing.is_empty() || trailing.ends_with('\n') { "" } else { "\n" };
    let gap = if text.is_empty() { "" } else { "\n" };
    table.decor_mut().set_prefix(format!("{trailing}{end}{gap}"));
    list.push(table);
    document.set_trailing("");
    Ok(document.to_string())
}

/// The text of an inventory that says of a device that it is enrolled; the same when it says so.
///
/// # Errors
/// The text is not valid.
pub fn enrolled(name: &str, text: &str, device: &str) -> Result<String, Diagnostic> {
    edit(name, text, |list| list.iter_mut().filter(|table| is(table, device)).for_each(|table| drop(table.insert("enrolled", value(true)))))
}

/// The text of an inventory without a device.
///
/// # Errors
/// The text is not valid.
pub fn without_device(name: &str, text: &str, device: &str) -> Result<String, Diagnostic> {
    edit(name, text, |list| list.retain(|table| !is(table, device)))
}

fn is(table: &Table, device: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(device)
}

fn edit(name: &str, text: &str, change: impl FnOnce(&mut ArrayOfTables)) -> Result<String, Diagnostic> {
    parse(name, text)?;
    let wrong = |message: String| Diagnostic::new(name, Place::default(), message);
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| wrong(e.message().to_owned()))?;
    let list = document.get_mut("device").and_then(Item::as_array_of_tables_mut);
    change(list.ok_or_else(|| wrong("`device` is written inline".to_owned()).help("write each device as a [[device]] table"))?);
    Ok(document.to_string())
}

fn table(device: &Device) -> Table {
    let mut table = Table::new();
    table.insert("name", value(&*device.name));
    table.insert("host", value(&device.host));
    table.insert("port", value(i64::from(device.port)));
    table.insert("user", value(&device.user));
    table.insert("platform", value(device.platform.word()));
    if let Some(site) = &device.site {
        table.insert("site", value(&**site));
    }
    if !device.tags.is_empty() {
        table.insert("tags", value(device.tags.iter().map(|tag| tag.to_string()).collect::<toml_edit::Array>()));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, host: &str) -> Device {
        Device::new(name, host)
    }

    #[test]
    fn adding_keeps_every_comment_and_refuses_duplicates() {
        let before = "# ours\n\n[[device]] # the first\nname = \"ap1\" # kitchen\nhost = \"192.168.1.1\"\n\n# the end\n";
        let after = with_device("devices.toml", before, &device("ap2", "192.168.1.3")).unwrap();
        assert!(after.starts_with(before), "{after}");
        assert!(after.ends_with("\n[[device]]\nname = \"ap2\"\nhost = \"192.168.1.3\"\nport = 22\nuser = \"root\"\nplatform = \"openwrt-fw4\"\n"), "{after}");
        assert_eq!(parse("devices.toml", &after).unwrap().devices.len(), 2);
        let twice = with_device("devices.toml", before, &device("ap1", "192.168.1.9")).unwrap_err().to_string();
        assert_eq!(twice, "devices.toml: device `ap1` is there already, as root@192.168.1.1:22; choose another name with --name");
        assert_eq!(with_device("devices.toml", before, &device("ap1", "192.168.1.1")).unwrap(), before);
        let same = with_device("devices.toml", before, &device("ap3", "192.168.1.1")).unwrap_err().to_string();
        assert!(same.contains("as `ap1`"), "{same}");
        assert!(with_device("devices.toml", "", &device("ap1", "a")).unwrap().starts_with("[[device]]\n"));
    }

    #[test]
    fn what_ssh_would_take_for_an_option_is_no_device() {
        assert_eq!(validate(&device("ap1", "-oProxyCommand=reboot")), Err(DeviceError::Host));
        assert_eq!(validate(&device("ap1", "a b")), Err(DeviceError::Host));
        assert_eq!(validate(&device("../x", "a")), Err(DeviceError::Name));
        assert_eq!(validate(&device("AP1", "a")), Err(DeviceError::Name));
        assert_eq!(validate(&Device { user: "-l".into(), ..device("ap1", "a") }), Err(DeviceError::User));
        assert_eq!(validate(&device("ap1.lan", "fe80::1%eth0")), Ok(()));
        let error = parse("devices.toml", "[[device]]\nname='a'\nhost='-x'\n").unwrap_err().to_string();
        assert!(error.starts_with("devices.toml: device `a`: `host`"), "{error}");
    }
}
