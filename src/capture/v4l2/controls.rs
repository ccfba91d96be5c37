//! Controls of a video device: listing, setting by name, reading back.
//!
//! Names are those of `v4l2-ctl`: the driver's text in lower case, everything but letters and digits as one `_`. Compound controls
//! (matrices, areas) are left out. Source: the kernel's `VIDIOC_QUERY_EXT_CTRL`, `VIDIOC_QUERYMENU` and control reference.

use serde_json::{Value as Json, json};
use v4l::Device;
use v4l::control::{Control, Flags, Value};
use v4l::v4l_sys::{V4L2_CTRL_FLAG_NEXT_CTRL, v4l2_query_ext_ctrl, v4l2_querymenu};

use super::super::device::{device_error, must_agree};
use super::super::{Settings, Values};
use crate::error::{Error, Result};

/// `EXPOSURE_AUTO`, where 1 is manual.
const EXPOSURE_AUTO: u32 = 0x009a_0901;
/// `EXPOSURE_ABSOLUTE`, in units of 100 µs.
const EXPOSURE_ABSOLUTE: u32 = 0x009a_0902;
/// `AUTO_WHITE_BALANCE`.
const AUTO_WHITE_BALANCE: u32 = 0x0098_090c;
/// `AUTOGAIN`.
const AUTOGAIN: u32 = 0x0098_0912;
/// `GAIN`.
const GAIN: u32 = 0x0098_0913;

/// What a control takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, or a set of bits.
    Number,
    /// 0 or 1.
    Switch,
    /// One of [`Info::items`].
    Menu,
    /// Something that happens.
    Button,
    /// A text.
    Text,
}

/// A control of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The kernel's number.
    pub id: u32,
    /// Name as in `v4l2-ctl`.
    pub name: String,
    /// What it takes.
    pub kind: Kind,
    /// Lowest value.
    pub min: i64,
    /// Highest value.
    pub max: i64,
    /// Distance of values.
    pub step: u64,
    /// Value after a reset.
    pub default: i64,
    /// Cannot be set.
    pub read_only: bool,
    /// Cannot be read.
    pub write_only: bool,
    /// A menu's values and texts.
    pub items: Vec<(u32, String)>,
}

impl Info {
    /// Range and value, for people.
    #[must_use]
    pub fn json(&self, device: &Device) -> Json {
        let mut out = json!({"min": self.min, "max": self.max, "step": self.step, "default": self.default});
        match self.kind {
            Kind::Button => return json!({"button": true}),
            Kind::Text => return json!({"text": true}),
            Kind::Menu => out["items"] = self.items.iter().map(|(n, text)| json!({"value": n, "text": text})).collect(),
            Kind::Number | Kind::Switch => {}
        }
        if let Ok(value) = read(device, self.id) {
            out["value"] = value.into();
        }
        if self.read_only {
            out["read_only"] = true.into();
        }
        out
    }

    /// The number that `text` means for this control.
    fn parse(&self, text: &str) -> Option<i64> {
        let number = text.parse::<i64>().ok();
        match self.kind {
            Kind::Switch => match text {
                "true" | "on" => Some(1),
                "false" | "off" => Some(0),
                _ => number,
            },
            Kind::Menu => number.or_else(|| self.items.iter().find(|(_, t)| t == text).map(|(n, _)| i64::from(*n))),
            Kind::Number => number,
            Kind::Button => Some(0),
            Kind::Text => None,
        }
    }
}

/// `v4l2-ctl`'s form of a driver's text.
fn name_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
    }
    out.trim_end_matches('_').to_owned()
}

/// Text of a fixed field, up to its first zero.
fn text_of(bytes: impl Iterator<Item = u8>) -> String {
    let bytes: Vec<u8> = bytes.take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All simple controls that are not disabled.
///
/// # Errors
/// What the kernel says; a device without controls has an empty list.
pub fn list(device: &Device) -> std::io::Result<Vec<Info>> {
    let mut out = Vec::new();
    let mut id = 0;
    loop {
        // SAFETY: a C structure of numbers and arrays of numbers, for which all zeros is a value.
        let mut query: v4l2_query_ext_ctrl = unsafe { std::mem::zeroed() };
        query.id = id | V4L2_CTRL_FLAG_NEXT_CTRL;
        // SAFETY: the descriptor is open as long as `device`, and `query` is the structure that this call takes, alive throughout it.
        let asked =
            unsafe { v4l::v4l2::ioctl(device.handle().fd(), v4l::v4l2::vidioc::VIDIOC_QUERY_EXT_CTRL, (&raw mut query).cast()) };
        match asked {
            // The end of the list, or a driver without controls at all.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => return Ok(out),
            Err(e) => return Err(e),
            Ok(()) => {}
        }
        id = query.id;
        let flags = Flags::from(query.flags);
        let kind = match query.type_ {
            1 | 5 | 8 => Kind::Number,
            2 => Kind::Switch,
            3 | 9 => Kind::Menu,
            4 => Kind::Button,
            7 => Kind::Text,
            // A class's heading, or something newer than this program.
            _ => continue,
        };
        if flags.contains(Flags::DISABLED) {
            continue;
        }
        let items = if kind == Kind::Menu { items(device, &query) } else { Vec::new() };
        out.push(Info {
            id,
            name: name_of(&text_of(query.name.iter().map(|c| c.to_ne_bytes()[0]))),
            kind,
            min: query.minimum,
            max: query.maximum,
            step: query.step,
            default: query.default_value,
            read_only: flags.contains(Flags::READ_ONLY),
            write_only: flags.contains(Flags::WRITE_ONLY),
            items,
        });
    }
}

fn items(device: &Device, query: &v4l2_query_ext_ctrl) -> Vec<(u32, String)> {
    let mut out = Vec::new();
    for index in query.minimum.max(0)..=query.maximum.min(255) {
        // SAFETY: a C structure of numbers, for which all zeros is a value.
        let mut menu: v4l2_querymenu = unsafe { std::mem::zeroed() };
        (menu.id, menu.index) = (query.id, u32::try_from(index).unwrap_or(0));
        // SAFETY: the descriptor is open as long as `device`, and `menu` is the structure that this call takes, alive throughout it.
        let asked =
            unsafe { v4l::v4l2::ioctl(device.handle().fd(), v4l::v4l2::vidioc::VIDIOC_QUERYMENU, (&raw mut menu).cast()) };
        // Drivers leave holes in their menus.
        if asked.is_err() {
            continue;
        }
        // SAFETY: the kernel filled the member that the control's type says; both are plain numbers.
        let text = unsafe {
            if query.type_ == 9 {
                { menu.__bindgen_anon_1.value }.to_string()
            } else {
                text_of(menu.__bindgen_anon_1.name.iter().copied())
            }
        };
        out.push((menu.index, text));
    }
    out
}

/// A control's number.
fn read(device: &Device, id: u32) -> std::io::Result<i64> {
    match device.control(id)?.value {
        Value::Integer(v) => Ok(v),
        Value::Boolean(v) => Ok(i64::from(v)),
        _ => Err(std::io::Error::other("the control is not a number")),
    }
}

/// Sets a control and reads it back.
fn set(device: &Device, id: u32, value: i64) -> std::io::Result<i64> {
    device.set_control(Control { id, value: Value::Integer(value) })?;
    read(device, id)
}

/// Sets everything that `settings` asks of the controls, reads it back, and answers with the values in force.
///
/// # Errors
/// [`crate::Kind::Config`] for a control the device has not or a value that is none of its own; a retryable error naming both values where
/// the device does not take one.
pub(super) fn apply(label: &str, device: &Device, settings: &Settings) -> Result<Values> {
    let all = list(device).map_err(|e| device_error(label, "asking for its controls", &e))?;
    let has = |id: u32| all.iter().any(|c| c.id == id);
    let needed = |id: u32, name: &str, key: &str| {
        if has(id) {
            return Ok(());
        }
        let names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
        Err(Error::config(format!("{label}: has no control {name}, which {key} needs; it has {}", names.join(", "))))
    };
    let mut values = Values::new();
    for (id, off, asked) in [
        (EXPOSURE_AUTO, 1, settings.exposure_us.is_some() || settings.auto_off),
        (AUTOGAIN, 0, settings.gain.is_some() || settings.auto_off),
        (AUTO_WHITE_BALANCE, 0, settings.auto_off),
    ] {
        let Some(control) = all.iter().find(|c| c.id == id).filter(|c| asked && !c.read_only) else { continue };
        let actual = set(device, id, off).map_err(|e| device_error(label, &format!("setting {}", control.name), &e))?;
        must_agree(label, &control.name, off as f64, actual as f64)?;
        values.insert(control.name.clone(), actual.to_string());
    }
    if let Some(us) = settings.exposure_us {
        needed(EXPOSURE_ABSOLUTE, "exposure_time_absolute", "camera.exposure_us")?;
        let actual = set(device, EXPOSURE_ABSOLUTE, (us / 100.0).round() as i64)
            .map_err(|e| device_error(label, "setting exposure_us", &e))?;
        must_agree(label, "exposure_us", us, actual as f64 * 100.0)?;
    }
    if let Some(gain) = settings.gain {
        needed(GAIN, "gain", "camera.gain")?;
        let actual = set(device, GAIN, gain.round() as i64).map_err(|e| device_error(label, "setting gain", &e))?;
        must_agree(label, "gain", gain, actual as f64)?;
    }
    for (name, text) in &settings.controls {
        let control = all.iter().find(|c| &c.name == name).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
            Error::config(format!("{label}: has no control {name}; it has {}", names.join(", ")))
        })?;
        let wanted = control.parse(text).filter(|v| control.kind == Kind::Button || (control.min..=control.max).contains(v));
        let wanted = wanted.ok_or_else(|| {
            let range = if control.items.is_empty() {
                format!("{} to {}", control.min, control.max)
            } else {
                control.items.iter().map(|(n, t)| format!("{n} ({t})")).collect::<Vec<_>>().join(", ")
            };
            Error::config(format!("{label}: control {name} must be {range}, got {text:?}"))
        })?;
        let failed = |e: std::io::Error| device_error(label, &format!("setting {name} to {text}"), &e);
        if control.kind == Kind::Button || control.write_only {
            device.set_control(Control { id: control.id, value: Value::Integer(wanted) }).map_err(failed)?;
            continue;
        }
        let actual = set(device, control.id, wanted).map_err(failed)?;
        must_agree(label, name, wanted as f64, actual as f64)?;
        values.insert(name.clone(), actual.to_string());
    }
    if let Some(v) = Some(EXPOSURE_ABSOLUTE).filter(|id| has(*id)).and_then(|id| read(device, id).ok()) {
        values.insert("exposure_us".into(), (v * 100).to_string());
    }
    if let Some(v) = Some(GAIN).filter(|id| has(*id)).and_then(|id| read(device, id).ok()) {
        values.insert("gain".into(), v.to_string());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_v4l2_ctl() {
        assert_eq!(name_of("Exposure Time, Absolute"), "exposure_time_absolute");
        assert_eq!(name_of("White Balance, Automatic"), "white_balance_automatic");
        assert_eq!(name_of("Inject V4L2_BUF_FLAG_ERROR"), "inject_v4l2_buf_flag_error");
        assert_eq!(name_of("  (odd) "), "odd");
    }

    #[test]
    fn values_are_read_by_kind() {
        let of = |kind| Info {
            id: 1,
            name: "c".into(),
            kind,
            min: 0,
            max: 3,
            step: 1,
            default: 0,
            read_only: false,
            write_only: false,
            items: vec![(0, "Auto Mode".into()), (1, "Manual Mode".into())],
        };
        assert_eq!(of(Kind::Number).parse("2"), Some(2));
        assert_eq!(of(Kind::Number).parse("two"), None);
        assert_eq!((of(Kind::Switch).parse("on"), of(Kind::Switch).parse("0")), (Some(1), Some(0)));
        assert_eq!((of(Kind::Menu).parse("Manual Mode"), of(Kind::Menu).parse("0")), (Some(1), Some(0)));
        assert_eq!(of(Kind::Text).parse("x"), None);
    }
}
