//! `fetch` as a program, against real servers: nginx from Debian's package, moto's S3, and a server of its own for what these cannot do (resets, objects that
//! change, counted bytes). `scripts/fetch-test-nginx` and `scripts/make-test-environment moto` lay them into `.cache`. Needs no container.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report, in its helpers too.

/// Servers, and calls of the program, that a test can speak of in one line.
mod support;

/// Over http and https, from nginx.
mod web;

/// Servers that break off, lie and change their minds.
mod broken;

/// From S3, with the credentials of the SDK's chain.
mod s3;

/// Killed at any moment, and a file that is larger than the memory it may use.
mod endurance;

/// What is wrong before anything is fetched, and how it is said.
mod input;
