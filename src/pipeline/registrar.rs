//! Registration of a frame to the best of a product's pictures.

use std::sync::Arc;

use super::job::Product;
use crate::align::{self, Aligner, Registration};
use crate::frame::Gray;

/// One thread's registration: an [`Aligner`] a picture, renewed when a recipe brings other limits.
#[derive(Debug, Default)]
pub struct Registrar {
    aligners: Vec<Aligner>,
    settings: Option<Arc<align::Settings>>,
}

impl Registrar {
    /// One that has met no product yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the last poses that tracking would start from.
    pub fn forget_pose(&mut self) {
        self.aligners.iter_mut().for_each(Aligner::forget_pose);
    }

    /// Registers every picture of `product`; returns the best one's place and registration: accepted before refused, then the higher
    /// confidence, then the earlier.
    pub fn register(&mut self, product: &Product, frame: &Gray) -> (usize, Registration) {
        // A product's settings are one allocation: the same one means the same recipe.
        let known = self.settings.as_ref().is_some_and(|s| Arc::ptr_eq(s, &product.align) || **s == *product.align);
        if !known {
            self.aligners.clear();
            self.settings = Some(Arc::clone(&product.align));
        }
        while self.aligners.len() < product.views.len() {
            self.aligners.push(Aligner::new(&product.align));
        }
        let mut best: Option<(usize, Registration)> = None;
        for (i, (view, aligner)) in product.views.iter().zip(&mut self.aligners).enumerate() {
            let found = aligner.align(&view.model, frame);
            let better = best.as_ref().is_none_or(|(_, b)| (found.accepted, found.confidence) > (b.accepted, b.confidence));
            if better {
                best = Some((i, found));
            }
        }
        best.expect("a product has a view: its constructor refuses none")
    }
}
