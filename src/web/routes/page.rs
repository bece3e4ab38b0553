//! `/`, and what belongs to it: `/status.json`, the style sheet, the script and the icon.

use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpResponse, HttpResponseBuilder, web};

use crate::web::page::{ICON, Page, SCRIPT, STYLE};

/// Only what the app itself serves, no inline style or script, in no frame, and nothing is sent anywhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub async fn page(page: web::Data<Page>) -> HttpResponse {
    match page.make().await {
        Some(made) => of_now("text/html; charset=utf-8").body(made.html.clone()),
        None => too_slow(),
    }
}

/// What the page shows, for programs.
pub async fn status(page: web::Data<Page>) -> HttpResponse {
    match page.make().await {
        Some(made) => of_now("application/json").body(made.json.clone()),
        None => too_slow(),
    }
}

/// The style sheet.
pub async fn style() -> HttpResponse {
    of_this_build("text/css; charset=utf-8", STYLE)
}

/// The script.
pub async fn script() -> HttpResponse {
    of_this_build("text/javascript; charset=utf-8", SCRIPT)
}

/// The icon.
pub async fn icon() -> HttpResponse {
    of_this_build("image/svg+xml", ICON)
}

fn of_now(kind: &'static str) -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer.content_type(kind).insert_header((header::CACHE_CONTROL, "no-store"));
    guarded(answer)
}

/// Asked for again with each load: it changes with the app, and there is no other sign of that.
fn of_this_build(kind: &'static str, content: &'static str) -> HttpResponse {
    let mut answer = HttpResponse::Ok();
    answer.content_type(kind).insert_header((header::CACHE_CONTROL, "no-cache"));
    guarded(answer).body(content)
}

fn guarded(mut answer: HttpResponseBuilder) -> HttpResponseBuilder {
    answer
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((HeaderName::from_static("cross-origin-resource-policy"), "same-origin"));
    answer
}

fn too_slow() -> HttpResponse {
    HttpResponse::ServiceUnavailable().insert_header((header::RETRY_AFTER, "2")).body("the record's folder does not answer\n")
}
