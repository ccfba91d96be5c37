//! What frames are compared with: out of the recipe in force, or else as the configuration says.

use std::sync::Arc;

use super::run::{align_settings, decision_settings};
use crate::config::Config;
use crate::decide;
use crate::error::{Error, Result};
use crate::pipeline::job::Product;
use crate::pipeline::steps::ImageLimits;
use crate::recipe::{self, Prepared};
use crate::template::store::Store;

/// Loads what frames are compared with: by the recipe in force, or else `product.name`'s active template as configured.
///
/// # Errors
/// [`crate::Kind::Missing`] when nothing was taught, [`crate::Kind::Data`] when the stored template or recipe is damaged or unusable,
/// [`crate::Kind::Config`] for a recipe that does not fit.
pub fn load(config: &Config) -> Result<Product> {
    if let Some(recipe) = super::recipe::book(config)?.load_active()? {
        return of_recipe(config, super::recipe::prepare(config, recipe)?);
    }
    let name = config.text("product.name");
    let id = crate::template::id_of(&name)?;
    let template =
        Store::open(&config.template_dir())?.load_active(&id).map_err(|e| e.context(format!("product.name {name}")))?;
    let mut product = Product::new(vec![(Arc::new(template), decision_settings(config))], &align_settings(config))?;
    product.limits = image_limits(config, &recipe::ImageLimits::default());
    Ok(product)
}

/// A product by a recipe that was prepared.
///
/// # Errors
/// What [`Product::new`] says of a template that cannot be registered; [`crate::Kind::Config`] for limits that contradict the
/// configuration's.
pub fn of_recipe(config: &Config, prepared: Prepared) -> Result<Product> {
    let what = |e: Error| e.context(format!("recipe of product {:?}", prepared.recipe.product));
    let align = prepared.recipe.align(&align_settings(config));
    align.check().map_err(what)?;
    let templates = prepared.views.iter().map(|v| {
        let decision = decide::Settings { zones: v.zones.clone(), ..prepared.decision.clone() };
        (Arc::clone(&v.template), decision)
    });
    let mut product = Product::new(templates.collect(), &align).map_err(what)?;
    let recipe = &prepared.recipe;
    product.limits = image_limits(config, &recipe.image);
    if product.limits.min_mean >= product.limits.max_mean {
        let (low, high) = (product.limits.min_mean, product.limits.max_mean);
        return Err(what(Error::config(format!(
            "image.min_mean must be below image.max_mean ({high}, recipe and configuration taken together), got {low}"
        ))));
    }
    product.max_shift_px = recipe.pose.max_shift_px;
    product.detector = recipe.detector;
    product.compare_with = recipe.compare_with;
    product.classical = recipe.classical.clone();
    product.mm_per_px = recipe.mm_per_px.or(product.mm_per_px);
    product.trigger = recipe.trigger;
    product.recipe_sha256 = Some(recipe.sha256.clone());
    Ok(product)
}

/// The configuration's limits of the picture with what a recipe changes.
fn image_limits(config: &Config, changes: &recipe::ImageLimits) -> ImageLimits {
    let either = |change: Option<f64>, key: &str| change.unwrap_or_else(|| config.f64(key)) as f32;
    ImageLimits {
        min_mean: either(changes.min_mean, "image.min_mean"),
        max_mean: either(changes.max_mean, "image.max_mean"),
        max_saturated_frac: either(changes.max_saturated_frac, "image.max_saturated_frac"),
        min_focus: either(changes.min_focus, "image.min_focus"),
        max_noise: config.f64("image.max_noise") as f32,
    }
}
