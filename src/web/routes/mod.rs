//! HTTP. One file for each path; what they share is here.

mod health;
mod metrics;
mod page;
mod ready;

use actix_web::guard::{self, Guard};
use actix_web::http::header;
use actix_web::{HttpResponse, Resource, web};

pub use health::health;
pub use metrics::metrics;
pub use ready::ready;

/// Adds every path to the server.
pub fn configure(config: &mut web::ServiceConfig) {
    // The router tries them in this order: those that probes ask for come first.
    config
        .service(read_only("/health").route(web::route().guard(reads()).to(health)))
        .service(read_only("/ready").route(web::route().guard(reads()).to(ready)))
        .service(read_only("/").route(web::route().guard(reads()).to(page::page)))
        .service(read_only("/status.json").route(web::route().guard(reads()).to(page::status)))
        .service(read_only("/page.css").route(web::route().guard(reads()).to(page::style)))
        .service(read_only("/page.js").route(web::route().guard(reads()).to(page::script)))
        .service(read_only("/icon.svg").route(web::route().guard(reads()).to(page::icon)))
        .service(read_only("/metrics").route(web::route().guard(reads()).to(metrics)))
        .default_service(web::to(unknown_path));
}

/// `curl -I` asks by HEAD, and probes do too, so it is answered like GET, without the body.
fn reads() -> impl Guard {
    guard::Any(guard::Get()).or(guard::Head())
}

fn read_only(path: &str) -> Resource {
    web::resource(path).default_service(web::to(wrong_method))
}

async fn wrong_method() -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET, HEAD")).finish()
}

async fn unknown_path() -> HttpResponse {
    HttpResponse::NotFound().json(serde_json::json!({
        "error": "no such path",
        "paths": ["/", "/status.json", "/health", "/ready", "/metrics"],
    }))
}
