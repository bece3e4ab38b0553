//! `/metrics`: for Prometheus.

use actix_web::{HttpResponse, web};

use crate::web::instruments::Instruments;
use crate::web::page::Page;
use crate::web::readiness::Checker;

/// Asks no server: it tells what the last checks saw, and what `failover-check` has left.
pub async fn metrics(instruments: web::Data<Instruments>, checker: web::Data<Checker>, page: web::Data<Page>) -> HttpResponse {
    checker.note_pool();
    if let Some(made) = page.make().await {
        instruments.note_view(&made.view);
    }
    match instruments.encode() {
        Ok(text) => HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text),
        Err(error) => {
            log::error!("cannot write the metrics: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}
