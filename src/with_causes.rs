//! An error in words, with its causes.

use std::error::Error;

/// An error's words with those of its causes, which many a library leaves out of its own `Display`. A cause that is quoted already is not said twice.
#[must_use]
pub fn with_causes(error: &(impl Error + ?Sized)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words = format!("{words}: {inner_words}");
        }
        cause = inner.source();
    }
    words
}
