//! What a script sees of the world: the finding, the devices, and the actions as methods on devices.

use std::any::TypeId;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, EvalAltResult, Map as RhaiMap, NativeCallContext, Scope};
use serde_json::{Map, Value};

use super::evaluate::{ActionSignature, Evaluate};
use super::session::{Answer, Shared, Stop};
use super::value::{from_json, to_json};
use super::{own, parallel};
use crate::diag::nearest;
use crate::model::{Device, Finding, OutcomeState};

/// `finding`
#[derive(Clone)]
struct FindingHandle(Rc<Finding>, Option<DeviceHandle>);

/// A device of the inventory.
#[derive(Clone)]
struct DeviceHandle(Rc<Device>);

pub(super) type Raised<T> = Result<T, Box<EvalAltResult>>;

/// The constants of every script.
pub(super) fn globals(scope: &mut Scope<'_>, request: &Evaluate) {
    let mine = request.finding.device.as_ref();
    let device = request.devices.iter().find(|device| mine == Some(&device.name));
    let device = device.map(|device| DeviceHandle(Rc::new(device.clone())));
    scope.push_constant_dynamic("finding", Dynamic::from(FindingHandle(Rc::new((*request.finding).clone()), device)));
}

/// Something that a script may call.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Function {
    /// As it is written.
    pub call: String,
    /// What it gives.
    pub text: &'static str,
}

/// Registers, and keeps what is said of each: what has no documentation cannot be called.
struct Host<'a> {
    engine: &'a mut Engine,
    functions: Vec<Function>,
}

impl Host<'_> {
    fn told(&mut self, call: &str, text: &'static str) -> &mut Engine {
        self.functions.push(Function { call: call.to_owned(), text });
        self.engine
    }

    fn finding<T: Into<Dynamic> + Clone + 'static>(&mut self, name: &str, text: &'static str, of: fn(&Finding) -> T) {
        let engine = self.told(&format!("finding.{name}"), text);
        engine.register_get(name, move |finding: &mut FindingHandle| -> Dynamic { of(&finding.0).into() });
    }

    fn device<T: Into<Dynamic> + Clone + 'static>(&mut self, name: &str, text: &'static str, of: fn(&Device) -> T) {
        let engine = self.told(&format!("DEVICE.{name}"), text);
        engine.register_get(name, move |device: &mut DeviceHandle| -> Dynamic { of(&device.0).into() });
    }
}

/// Everything that a script may call.
pub(super) fn register(engine: &mut Engine, request: &Evaluate, session: &Shared) {
    host(engine, &request.devices);
    parallel::register(engine, session);
    for action in own::free().iter().chain(&request.actions) {
        let add = if action.own { function } else { self::action };
        add(engine, &Rc::new(action.clone()), session);
    }
}

/// What every script may call, beside the actions that its header names.
#[must_use]
pub fn functions() -> Vec<Function> {
    let mut functions = host(&mut Engine::new_raw(), &[]);
    let more = [
        ("DEVICE.ACTION(…)", "asks for an action, with its parameters in order or as one map: #{ ip: source, duration: \"30m\" }; #{ state, detail, ok }"),
        ("wait(time)", "the run goes on after this time, such as \"5m\"; at most 7d"),
        ("approve(text)", "a person says whether the run goes on; without a yes it ends"),
        ("notify(channel, text)", "a message about the finding; `actions` of the header must name `notify`; #{ state, detail, ok }"),
        ("publish(name, body)", "a text or a map to the broker of [publish.NAME]; `actions` of the header must name `publish`, and so must [actions]"),
        (
            "http_request(name, #{ … })",
            "a request to [endpoint.name] with these values; `actions` of the header must name `http_request`, and so must [actions]; #{ state, detail, ok }",
        ),
        ("parallel(list, limit, |item| …)", "calls the function for each element, so many at a time (10); the results, a list"),
        (
            "parallel(list, #{ limit, canary }, |item| …)",
            "the first `canary` elements one after the other; when one gives false or an outcome that is not ok, no other is begun",
        ),
        ("print(text)", "a line into the run's record"),
    ];
    functions.extend(more.map(|(call, text)| Function { call: call.to_owned(), text }));
    functions
}

fn host(engine: &mut Engine, devices: &[Device]) -> Vec<Function> {
    engine.register_type_with_name::<FindingHandle>("finding");
    engine.register_type_with_name::<DeviceHandle>("device");
    engine.register_fn("to_string", |device: &mut DeviceHandle| device.0.name.to_string());
    engine.register_fn("to_debug", |device: &mut DeviceHandle| device.0.name.to_string());
    engine.register_fn("==", |a: DeviceHandle, b: DeviceHandle| a.0.name == b.0.name);
    engine.register_fn("!=", |a: DeviceHandle, b: DeviceHandle| a.0.name != b.0.name);
    let mut host = Host { engine, functions: Vec::new() };
    finding(&mut host);
    host.device("name", "its name in devices.toml", |d| d.name.to_string());
    host.device("host", "its address or host name", |d| d.host.clone());
    host.device("platform", "its family of commands, such as \"openwrt-fw4\"", platform);
    host.device("site", "where it stands; () when devices.toml does not say", |d| text_or_unit(d.site.as_ref()));
    host.device("tags", "its words in devices.toml, a list", |d| words(&d.tags));
    inventory(&mut host, devices);
    host.functions
}

fn finding(host: &mut Host<'_>) {
    host.finding("id", "its id, 32 hexadecimal digits", |f| f.id.to_string());
    host.finding("time", "when it happened, RFC 3339 in UTC", |f| f.time.to_string());
    host.finding("title", "one line", |f| f.title.to_string());
    host.finding("text", "what happened, with the values", |f| f.text.clone());
    host.finding("severity", "1 (info) to 5 (critical)", |f| i64::from(u8::from(f.severity)));
    host.finding("level", "the severity's word", |f| f.level.to_string());
    host.finding("rule", "the rule's name, else its id", |f| f.rule.name.as_ref().unwrap_or(&f.rule.id).to_string());
    host.finding("group", "the group-by fields and their values, a map", |f| {
        f.group.iter().map(|(key, value)| (key.as_str().into(), from_json(value))).collect::<RhaiMap>()
    });
    host.finding("site", "the site of its device; () when that is not known", |f| text_or_unit(f.site.as_ref()));
    host.finding("value", "the number that the condition compared; () when there is none", |f| f.value.as_ref().map_or(Dynamic::UNIT, from_json));
    host.finding("count", "how many events it stands on", |f| i64::try_from(f.count).unwrap_or(i64::MAX));
    host.finding("tags", "the rule's tags, a list", |f| words(&f.tags));
    host.told("finding.device", "the device it happened on; () when it is not in devices.toml")
        .register_get("device", |finding: &mut FindingHandle| finding.1.clone().map_or(Dynamic::UNIT, Dynamic::from));
    host.told("finding.entity(role)", "the value of an entity, such as \"source\"; () when there is none")
        .register_fn("entity", |finding: &mut FindingHandle, role: &str| text_or_unit(finding.0.entities.get(role).map(|entity| &entity.value)));
}

fn inventory(host: &mut Host<'_>, devices: &[Device]) {
    let all: Rc<[DeviceHandle]> = devices.iter().map(|device| DeviceHandle(Rc::new(device.clone()))).collect();
    let (named, every) = (all.clone(), all.clone());
    host.told("device(name)", "the device of this name; () when there is none")
        .register_fn("device", move |name: &str| named.iter().find(|device| &*device.0.name == name).cloned().map_or(Dynamic::UNIT, Dynamic::from));
    host.told("devices()", "all devices, a list").register_fn("devices", move || -> Array { every.iter().cloned().map(Dynamic::from).collect() });
    host.told("devices(#{ name, host, platform, site, tag })", "the devices for which all that is given holds, a list")
        .register_fn("devices", move |filter: RhaiMap| -> Raised<Array> { chosen(&all, &filter) });
}

/// `devices(#{ site: "attic", tag: "ap" })`: all that is given must hold.
fn chosen(devices: &[DeviceHandle], filter: &RhaiMap) -> Raised<Array> {
    let mut left: Vec<&DeviceHandle> = devices.iter().collect();
    for (key, wanted) in filter {
        let Ok(wanted) = wanted.clone().into_string() else { return Err(format!("`{key}` of `devices` is no text").into()) };
        match key.as_str() {
            "host" => left.retain(|device| device.0.host == wanted),
            "platform" => left.retain(|device| platform(&device.0) == wanted),
            "name" => left.retain(|device| *device.0.name == *wanted),
            "site" => left.retain(|device| device.0.site.as_deref() == Some(&wanted)),
            "tag" => left.retain(|device| device.0.tags.iter().any(|tag| **tag == *wanted)),
            _ => return Err(unknown("devices", key, ["name", "host", "platform", "site", "tag"]).into()),
        }
    }
    Ok(left.into_iter().cloned().map(Dynamic::from).collect())
}

/// An action as a method: with its parameters in order, or one map of them.
fn action(engine: &mut Engine, action: &Rc<ActionSignature>, session: &Shared) {
    let any = TypeId::of::<Dynamic>();
    for count in 0..=action.params.len().max(1) {
        let types = |first| std::iter::once(first).chain(std::iter::repeat_n(any, count)).collect::<Vec<_>>();
        let (called, shared) = (action.clone(), session.clone());
        engine.register_raw_fn(&*action.name, types(TypeId::of::<DeviceHandle>()), move |context, args| call(&context, &called, &shared, args));
        let name = action.name.clone();
        engine.register_raw_fn(&*action.name, types(TypeId::of::<()>()), move |_, _| -> Raised<Dynamic> { Err(no_device(&name).into()) });
    }
}

/// What opmas does itself, as a function.
fn function(engine: &mut Engine, action: &Rc<ActionSignature>, session: &Shared) {
    for count in 0..=action.params.len().max(1) {
        let (called, shared) = (action.clone(), session.clone());
        engine.register_raw_fn(&*action.name, vec![TypeId::of::<Dynamic>(); count], move |context, args| {
            let given: Vec<&Dynamic> = args.iter().map(|arg| &**arg).collect();
            ask(&context, &called, &shared, &own::OPMAS.into(), &given)
        });
    }
}

fn no_device(action: &str) -> String {
    format!("`{action}` is called on (), which is no device: the finding or the inventory names none")
}

fn call(context: &NativeCallContext<'_>, action: &ActionSignature, session: &Shared, args: &mut [&mut Dynamic]) -> Raised<Dynamic> {
    let mut args = args.iter();
    let device = args.next().and_then(|device| device.read_lock::<DeviceHandle>().map(|device| device.0.name.clone()));
    let device: Arc<str> = device.ok_or_else(|| no_device(&action.name))?;
    let given: Vec<&Dynamic> = args.map(|arg| &**arg).collect();
    ask(context, action, session, &device, &given)
}

fn ask(context: &NativeCallContext<'_>, action: &ActionSignature, session: &Shared, device: &Arc<str>, given: &[&Dynamic]) -> Raised<Dynamic> {
    let params = params(action, given)?;
    match session.borrow_mut().step(device, action, params) {
        Ok(answer) => Ok(outcome(answer)),
        Err(Stop) => Err(EvalAltResult::ErrorTerminated(Dynamic::UNIT, context.call_position()).into()),
    }
}

/// By name, in the catalogue's order, so that both ways of calling ask for the same.
fn params(action: &ActionSignature, given: &[&Dynamic]) -> Result<Map<String, Value>, String> {
    let named = given.first().filter(|_| given.len() == 1).and_then(|only| only.read_lock::<RhaiMap>());
    if let Some(named) = &named {
        let known = || action.params.iter().map(|param| &*param.name);
        if let Some(key) = named.keys().find(|key| !known().any(|name| name == key.as_str())) {
            return Err(unknown(&action.name, key, known()));
        }
    }
    let mut params = Map::new();
    for (index, param) in action.params.iter().enumerate() {
        let value = match &named {
            Some(named) => named.get(&*param.name),
            None => given.get(index).copied(),
        };
        let json = value.map_or(Ok(Value::Null), to_json).map_err(|what| format!("`{}` of `{}` cannot be {what}", param.name, action.name))?;
        match json {
            Value::Null if param.required && value.is_some() => return Err(format!("`{}` of `{}` is (), which is no value", param.name, action.name)),
            Value::Null if param.required => return Err(format!("`{}` needs `{}`", action.name, param.name)),
            Value::Null => {}
            json => drop(params.insert(param.name.to_string(), json)),
        }
    }
    Ok(params)
}

pub(super) fn unknown<'a>(function: &str, key: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let help = nearest(key, known.iter().copied()).map_or_else(|| format!("known: {}", known.join(", ")), |word| format!("did you mean `{word}`?"));
    format!("`{function}` knows no `{key}`; {help}")
}

/// `#{ state: "enforced", detail: "…", ok: true }`
fn outcome(answer: Answer) -> Dynamic {
    let state = match serde_json::to_value(answer.state) {
        Ok(state) => from_json(&state),
        Err(_) => Dynamic::UNIT,
    };
    let ok = matches!(answer.state, OutcomeState::Enforced | OutcomeState::Undone | OutcomeState::Done);
    let entries = [("state", state), ("detail", answer.detail.into()), ("ok", ok.into())];
    Dynamic::from_map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn platform(device: &Device) -> String {
    serde_json::to_value(device.platform).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn text_or_unit(text: Option<&Arc<str>>) -> Dynamic {
    text.map_or(Dynamic::UNIT, |text| Dynamic::from(text.to_string()))
}

fn words(words: &[Arc<str>]) -> Dynamic {
    words.iter().map(|word| Dynamic::from(word.to_string())).collect::<Array>().into()
}
