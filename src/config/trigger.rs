//! What starts an exposure: set for the station, and by a recipe for its product.

use super::Config;

/// What starts an exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The device runs by itself.
    Free,
    /// A command asks for each picture.
    Software,
    /// The camera's own input.
    Hardware,
}

impl Trigger {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        match config.text("camera.trigger").as_str() {
            "software" => Trigger::Software,
            "hardware" => Trigger::Hardware,
            _ => Trigger::Free,
        }
    }

    /// Its word in events and recipes.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Trigger::Free => "free_run",
            Trigger::Software => "software",
            Trigger::Hardware => "gpio",
        }
    }

    /// The one of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Trigger::Free, Trigger::Software, Trigger::Hardware].into_iter().find(|t| t.word() == word)
    }
}
