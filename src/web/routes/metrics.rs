//! `/metrics`: for Prometheus.

use actix_web::{HttpResponse, web};

use crate::web::instruments::Instruments;
use crate::web::readiness::Checker;

/// Asks no server: it tells what the last checks saw.
pub async fn metrics(instruments: web::Data<Instruments>, checker: web::Data<Checker>) -> HttpResponse {
    checker.note_pool();
    match instruments.encode() {
        Ok(text) => HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text),
        Err(error) => {
            log::error!("cannot write the metrics: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}
