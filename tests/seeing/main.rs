//! What is there to be seen: the page in headless Chromium, the metrics, alerts and the dashboard by `promtool`. `scripts/fetch-test-tools` lays the
//! tools into `.cache`. Needs no container.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report, in its helpers too.

/// A headless Chromium that a test can speak of in one line.
mod browser;

/// The app with files of its own.
#[path = "../integration/web/running_app.rs"]
#[allow(dead_code)] // The integration tests use the rest.
mod running_app;

/// The names of the database's user, which the app's helper wants.
mod throwaway_server {
    pub const USER: &str = "nobody";
    pub const PASSWORD: &str = "hush";
}

/// Metrics, alerts and the dashboard.
mod monitoring;

/// The page as a person sees it.
mod page;
