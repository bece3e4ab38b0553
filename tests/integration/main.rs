//! Tests that need no container. One line for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report, in its helpers too.

// What the programs make of settings that leave every threshold at its default.
#[path = "../default_settings.rs"]
mod default_settings;

// The Ansible modules as programs: what they print for every kind of call.
mod ansible_modules;

// The app, started in this process on a free port, against no server, broken ones and real ones.
mod web;

// What is decided on whatever can be seen.
mod decisions;

// The README agrees with the programs, the playbooks and the Makefile.
mod readme;

// `failover-check` as a program: what it says to bad input, and how it ends.
mod failover_check;

// What passes tell outward: notifications, metrics; and that neither is ever in the way.
mod outward;
