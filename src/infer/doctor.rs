//! What a person must know about library, providers, model and engine of this machine; `ssds doctor` and `ssds model doctor` print it.
//!
//! Every finding says whether it keeps inspection from running as the settings ask. Nothing is changed: no engine is built (that takes
//! minutes), so the session is only opened when its provider needs no engine or has a fresh one.

use super::engine::{self, Cached, Key, Machine};
use super::library::{self, Library};
use super::model::ModelFile;
use super::provider::{self, Provider};
use super::start::profile;
use super::{Detector, Parity, Settings};

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// As the settings ask.
    pub good: bool,
    /// What was found; what is wrong.
    pub text: String,
}

fn finding(what: impl Into<String>, good: bool, text: impl Into<String>) -> Finding {
    Finding { what: what.into(), good, text: text.into() }
}

/// Looks at everything that `settings` name, in the order in which a start needs it.
#[must_use]
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mut out = Vec::new();
    if let Err(e) = settings.check() {
        out.push(finding("inference settings", false, e.to_string()));
        return out;
    }
    out.push(threads(settings));
    let machine = Machine::detect();
    let named = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let gpu = format!("{}, driver {}, TensorRT {}", named(&machine.gpu), named(&machine.driver), named(&machine.tensorrt));
    out.push(finding("gpu", true, gpu));
    let library = library::load(settings.library.as_deref());
    out.push(match &library {
        Ok(library) => finding("onnx runtime", true, format!("{} from {}", library.version, library.path.display())),
        Err(e) => finding("onnx runtime", false, e.to_string()),
    });
    let model = ModelFile::read(settings);
    out.push(match &model {
        Ok(model) => finding("model", true, describe(model)),
        Err(e) => finding("model", false, e.to_string()),
    });
    let (Ok(library), Ok(model)) = (library, model) else { return out };
    let mut first_usable = None;
    for (i, &provider) in settings.providers.iter().enumerate() {
        let probed = provider::probe(&library, settings, provider, &profile(settings, &model));
        first_usable = first_usable.or(probed.is_ok().then_some(provider));
        // A later provider may be missing without harm once an earlier one works.
        let needed = i == 0 || first_usable.is_none();
        out.push(match probed {
            Ok(()) => finding(format!("provider {provider}"), true, "can be used"),
            Err(e) => finding(format!("provider {provider}"), !needed, e.to_string()),
        });
    }
    let ready = match first_usable {
        Some(Provider::TensorRt) => {
            let (ready, finding) = engine(settings, &model, &library, &machine);
            out.push(finding);
            ready
        }
        Some(_) => true,
        None => false,
    };
    if ready {
        out.push(session(settings));
    }
    out
}

fn describe(model: &ModelFile) -> String {
    let contract = &model.contract;
    let mut text = format!("{} {} ({}), sha256 {}", contract.name, contract.version, model.path.display(), model.sha256);
    if let Some(manifest) = &model.manifest {
        text += &format!(" as in {}", manifest.display());
    }
    match &model.signed_by {
        Some(key) => text += &format!(", signed by {key}"),
        None => text += ", signature not asked for",
    }
    if contract.golden.is_none() {
        text += ", without a golden vector";
    }
    text
}

fn threads(settings: &Settings) -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = settings.thread_count();
    let text = format!("{threads} of {cores} cores{}", if settings.spinning { ", spinning" } else { "" });
    match settings.cpus.iter().find(|cpu| **cpu >= cores) {
        Some(cpu) => {
            finding("threads", false, format!("inference.cpus names processor {cpu}, this machine has 0 to {}", cores - 1))
        }
        None if threads > cores => {
            finding("threads", false, format!("{text}: more threads than cores only slow each other down"))
        }
        None => finding("threads", true, text),
    }
}

/// Whether a fresh engine is there, and what to say of it.
fn engine(settings: &Settings, model: &ModelFile, library: &Library, machine: &Machine) -> (bool, Finding) {
    let key = match Key::new(&model.sha256, &library.version, machine, settings, &profile(settings, model)) {
        Ok(key) => key,
        Err(e) => return (false, finding("engine", false, e.to_string())),
    };
    let ahead = "the next start builds it, which takes minutes; `ssds model build` does so ahead";
    match engine::look_up(&settings.engines, &key) {
        Cached::Fresh(path) => (true, finding("engine", true, path.display().to_string())),
        Cached::Absent => (false, finding("engine", false, format!("none in {} yet: {ahead}", settings.engines.display()))),
        Cached::Stale(reason) => (false, finding("engine", false, format!("is stale ({reason}): {ahead}"))),
    }
}

fn session(settings: &Settings) -> Finding {
    match Detector::open(settings) {
        Ok(detector) => {
            let info = detector.info();
            let fell = info.fallbacks.iter().map(|(provider, _)| format!(", not {provider}")).collect::<String>();
            let partly = if info.partly_on_cpu { ", some nodes on the processor" } else { "" };
            let good = info.fallbacks.is_empty() && info.parity != Parity::Unverified && !info.partly_on_cpu;
            finding("session", good, format!("{} ({}){fell}{partly}, parity {}", info.provider, info.precision, info.parity))
        }
        Err(e) => finding("session", false, e.to_string()),
    }
}
