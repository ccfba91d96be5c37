//! The devices that training can run on, and whether one computes what the processor computes.

use burn::tensor::Device;

use crate::error::{Error, Result};
use crate::train::config::DeviceKind;

/// Largest share by which a device's loss may differ from the processor's. TensorFloat-32 products stay well below.
const LOSS_TOLERANCE: f64 = 0.02;
/// The same for gradients and logits, as vectors.
const VECTOR_TOLERANCE: f64 = 0.1;

/// What a device computed for given weights and pairs.
#[derive(Debug, Clone)]
pub struct Trial {
    /// MSE, BCE, Dice, L_irr.
    pub losses: [f32; 4],
    /// The gradient of their sum.
    pub gradient: Vec<f32>,
    /// The maps before the sigmoid.
    pub logits: Vec<f32>,
}

/// Whether `got` is what the processor computed.
///
/// # Errors
/// [`Kind::Unavailable`](crate::error::Kind::Unavailable) with the first value that is not.
pub fn compare(kind: DeviceKind, got: &Trial, wanted: &Trial) -> Result<()> {
    let refuse = |what: String| {
        let name = format!("{kind:?}").to_lowercase();
        Err(Error::unavailable(format!(
            "--device {name} computes something else than the processor: {what}; it is not used (another driver may help; --device cpu works \
             everywhere)"
        )))
    };
    for ((name, got), wanted) in ["MSE", "BCE", "Dice", "L_irr"].iter().zip(got.losses).zip(wanted.losses) {
        let difference = f64::from(got - wanted).abs();
        // false for NaN too
        let within = difference <= LOSS_TOLERANCE * f64::from(wanted).abs().max(1e-3);
        if !within {
            return refuse(format!("the loss {name} is {got}, wanted {wanted} within {} %", 100.0 * LOSS_TOLERANCE));
        }
    }
    for (name, got, wanted) in [("gradient", &got.gradient, &wanted.gradient), ("map", &got.logits, &wanted.logits)] {
        let length = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let share = length(&mut got.iter().zip(wanted).map(|(g, w)| g - w)) / length(&mut wanted.iter().copied());
        let within = got.len() == wanted.len() && share <= VECTOR_TOLERANCE;
        if !within {
            return refuse(format!(
                "the {name} is off by {:.1} % of its length, wanted {} %",
                100.0 * share,
                100.0 * VECTOR_TOLERANCE
            ));
        }
    }
    Ok(())
}

/// Opens a burn device.
///
/// # Errors
/// A device this build or this machine does not have.
pub fn open(kind: DeviceKind) -> Result<Device> {
    match kind {
        DeviceKind::Cpu | DeviceKind::Flex => Ok(Device::flex()),
        DeviceKind::Vulkan => open_vulkan(),
        DeviceKind::Cuda => open_cuda(),
    }
}

#[cfg(feature = "train-vulkan")]
fn open_vulkan() -> Result<Device> {
    use std::sync::OnceLock;

    use burn::tensor::wgpu::WgpuBackend;
    // a device can be set up once a process
    static OPENED: OnceLock<Result<Device, String>> = OnceLock::new();
    let opened =
        OPENED.get_or_init(|| Device::wgpu_options().graphics_api(WgpuBackend::Vulkan).init().map_err(|e| e.to_string()));
    opened.clone().map_err(|error| {
        Error::unavailable(format!(
            "--device vulkan: no Vulkan device can be used (is the GPU's driver installed?): {error}; --device cpu works everywhere"
        ))
    })
}

#[cfg(not(feature = "train-vulkan"))]
fn open_vulkan() -> Result<Device> {
    Err(Error::new(
        crate::error::Kind::Usage,
        "--device vulkan: this ssds-train was built without it; build with --features train-vulkan, or use --device cpu",
    ))
}

#[cfg(feature = "train-cuda")]
fn open_cuda() -> Result<Device> {
    use burn::tensor::DeviceType;
    // the driver's nodes, on a PC, a Jetson (JetPack 6 and later, 5) and in WSL: without a driver burn panics
    let driver =
        ["/dev/nvidiactl", "/dev/nvgpu", "/dev/nvhost-gpu", "/dev/dxg"].iter().any(|node| std::path::Path::new(node).exists());
    let found = driver.then(|| Device::enumerate(DeviceType::Cuda).into_iter().next()).flatten();
    found.ok_or_else(|| {
        Error::unavailable(
            "--device cuda: no CUDA device was found (is the NVIDIA driver installed?); --device cpu works everywhere",
        )
    })
}

#[cfg(not(feature = "train-cuda"))]
fn open_cuda() -> Result<Device> {
    Err(Error::new(
        crate::error::Kind::Usage,
        "--device cuda: this ssds-train was built without it; build with --features train-cuda, or use --device cpu",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::engine::Engine;
    use crate::train::spec::Preset;

    #[test]
    fn a_device_that_computes_something_else_is_refused() {
        let good = Trial { losses: [0.1, 0.4, 0.9, 6.16], gradient: vec![1.0, -2.0], logits: vec![0.5; 4] };
        let check = |change: &dyn Fn(&mut Trial)| {
            let mut got = good.clone();
            change(&mut got);
            compare(DeviceKind::Vulkan, &got, &good).map_err(|e| e.message().to_owned())
        };
        check(&|_| {}).unwrap();
        check(&|t| t.losses[3] = 6.2).unwrap();
        check(&|t| t.gradient[0] = 1.1).unwrap();
        let start = "--device vulkan computes something else than the processor: ";
        let end = "; it is not used (another driver may help; --device cpu works everywhere)";
        // what a software device answered whose FFT was zeros
        assert_eq!(
            check(&|t| t.losses[3] = 6.41).unwrap_err(),
            format!("{start}the loss L_irr is 6.41, wanted 6.16 within 2 %{end}")
        );
        assert_eq!(
            check(&|t| t.losses[0] = f32::NAN).unwrap_err(),
            format!("{start}the loss MSE is NaN, wanted 0.1 within 2 %{end}")
        );
        assert_eq!(
            check(&|t| t.gradient = vec![0.0; 2]).unwrap_err(),
            format!("{start}the gradient is off by 100.0 % of its length, wanted 10 %{end}")
        );
        assert!(check(&|t| t.logits.truncate(3)).is_err() && check(&|t| t.logits[1] = f32::INFINITY).is_err());
    }

    #[test]
    fn devices_that_are_not_built_in_are_named() {
        let layout = Preset::Micro.spec().layout().unwrap();
        if !cfg!(feature = "train-vulkan") {
            let error = Engine::new(&layout, DeviceKind::Vulkan).map(|_| ()).unwrap_err();
            assert_eq!(
                error.message(),
                "--device vulkan: this ssds-train was built without it; build with --features train-vulkan, or use --device cpu"
            );
        }
        if !cfg!(feature = "train-cuda") {
            let error = Engine::new(&layout, DeviceKind::Cuda).map(|_| ()).unwrap_err();
            assert_eq!(
                error.message(),
                "--device cuda: this ssds-train was built without it; build with --features train-cuda, or use --device cpu"
            );
        }
    }
}
