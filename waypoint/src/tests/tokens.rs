//! Tokens of requests at a waypoint: who they let in, and what the application is told.

use http::StatusCode;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use mesh_model::policy::http::HttpMatch;
use mesh_model::policy::{Action, Clause, Match, Policy, RequestPrincipal, Rule as PolicyRule, Scope};
use mesh_model::token::JwtRule;
use mesh_model::token::rule::{ClaimHeader, TokenHeader};
use mesh_testkit::hbone::on_one_thread;
use serde_json::json;

use super::*;
use crate::tokens::issuer::Issuer;

/// What an application sees: its path, and the headers that are about tokens.
async fn seen(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    let named = ["authorization", "x-sub", "x-payload"].map(header);
    Response::new(Full::from(format!("{} {}", request.uri(), named.join(" "))))
}

fn rule(issuer: &Issuer) -> JwtRule {
    JwtRule {
        authentication: NamespacedName::new("shop", "tokens"),
        issuer: "me".into(),
        audiences: Vec::new(),
        keys: Ok(issuer.jwks().into()),
        headers: vec![TokenHeader { name: "authorization".into(), prefix: "Bearer ".into() }],
        params: vec!["access_token".into()],
        cookies: Vec::new(),
        forward: false,
        payload_header: Some("x-payload".into()),
        claim_headers: vec![ClaimHeader { header: "x-sub".into(), claim: vec!["sub".into()] }],
        space_delimited: Vec::new(),
    }
}

/// Only who has proven to be one of these may ask.
fn only(principals: &[&str]) -> Resource {
    let request_principals = principals.iter().map(|text| RequestPrincipal::parse(text)).collect();
    let http = Some(Arc::new(HttpMatch { request_principals, ..HttpMatch::default() }));
    let clause = Clause { matches: vec![Match { http, ..Match::default() }] };
    Resource::Policy(Arc::new(Policy {
        name: "only".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Allow,
        rules: vec![PolicyRule { clauses: vec![clause] }],
        dry_run: false,
    }))
}

#[tokio::test]
async fn a_token_proves_who_asks_and_nothing_else_does() {
    on_one_thread(async {
        let application = application(seen).await;
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let issuer = Issuer::new();
        let told = ServiceRoutes { tokens: [rule(&issuer)].into(), ..routes("cart", Vec::new(), &[]) };
        world.tables.apply_local(vec![Resource::Routes(Arc::new(told.clone()))]);
        let mut web = world.http1("web").await;
        let mut ask = async |path: &str, token: Option<&str>| {
            web.ready().await.unwrap();
            let mut request =
                Request::get(path).header("host", "cart").header("x-sub", "forged").header("x-payload", "forged");
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            web.send_request(request.body(Full::default()).unwrap()).await.unwrap()
        };
        let claims = json!({"iss": "me", "sub": "you"});
        let token = issuer.good(&claims);
        let payload = token.split('.').nth(1).unwrap().to_owned();
        // Nobody has to have one; whoever has, is told of; whoever forges, is not.
        assert_eq!(text(ask("/a", None).await).await, (200, "/a - - -".to_owned()));
        assert_eq!(text(ask("/a", Some(&token)).await).await, (200, format!("/a - you {payload}")));
        let query = format!("/a?b=c&access_token={token}");
        assert_eq!(text(ask(&query, None).await).await, (200, format!("/a?b=c - you {payload}")));
        assert!(world.logged("path=\"/a?b=c\"").await.contains("response_code=200"), "no token is written down");
        let refused = ask("/a?b", Some(&Issuer::new().good(&claims))).await;
        let header = |name| refused.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(header(WWW_AUTHENTICATE), "Bearer realm=\"http://cart/a\", error=\"invalid_token\"");
        assert_eq!(header(CONTENT_TYPE), "text/plain");
        assert_eq!(text(refused).await.1, "Jwt verification fails");
        assert!(world.logged("TOKEN_INVALID").await.contains("Jwt verification fails"));
        // From now on one has to have one.
        let policies = vec![NamespacedName::new("shop", "only")];
        world
            .tables
            .apply_local(vec![only(&["me/you"]), Resource::Routes(Arc::new(ServiceRoutes { policies, ..told }))]);
        assert_eq!(ask("/a", None).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(ask("/a", Some(&token)).await.status(), StatusCode::OK);
        let other = issuer.good(&json!({"iss": "me", "sub": "he"}));
        assert_eq!(ask("/a", Some(&other)).await.status(), StatusCode::FORBIDDEN);
        drop(web);
        world.end().await;
    })
    .await;
}
