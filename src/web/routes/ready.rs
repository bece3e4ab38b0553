//! `/ready`: a write can be served.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};

use crate::web::readiness::Checker;

/// Checks now, within the deadline. 200 or 503, with the same fields in both.
pub async fn ready(checker: web::Data<Checker>) -> HttpResponse {
    let readiness = checker.check().await;
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).insert_header((header::CACHE_CONTROL, "no-store")).json(readiness)
}
