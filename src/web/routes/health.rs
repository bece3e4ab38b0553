//! `/health`: the process lives and serves.

use actix_web::HttpResponse;
use actix_web::http::header::{self, ContentType};

const ALIVE: &str = r#"{"status":"alive"}"#;

/// Touches nothing else: whoever restarts processes by this answer must not restart them for a fault of the database.
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).insert_header(ContentType::json()).body(ALIVE)
}
