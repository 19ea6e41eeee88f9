//! A trace context that is sent with a tunnel is found in the access log; in that of both its ends, as the test of O10 sees.

use super::*;

/// The trace context that a line of the log tells.
pub(super) fn trace_of(line: &str) -> Option<&str> {
    line.split_once("trace=\"")?.1.split('"').next()
}

#[tokio::test]
async fn what_the_caller_sends_is_in_the_log_if_it_can_be_read() {
    with_rights(async {
        const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut ztunnel = Ztunnel::new();
        let server = ztunnel.serve("cart");
        let (app, other) = (echo().await, echo().await);
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("cart")))]);
        let (mut client, _) = ztunnel.caller(("cart", server.hbone)).await;
        for (app, sent, logged) in [(app, SENT, Some(SENT)), (other, "00-what\" is=this", None)] {
            let authority = format!("127.0.0.1:{app}");
            let context = Context { traceparent: sent, ..Context::default() };
            drop(client.open(&connect::request(&authority, &context).unwrap()).await.unwrap());
            let line = ztunnel.logged(&authority).await;
            assert_eq!(trace_of(&line), logged, "{line}");
        }
    })
    .await;
}
