//! Who is let in, and what is said to those who are not.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so_without_a_credential() {
    let server = server!();
    let wrong = refused(&server.url_of("guest:Xsecret", "%2F"), None).await;
    assert!(matches!(wrong, BrokerError::Authentication { .. }), "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("Xsecret"));

    let missing = refused(&server.url_of("guest:guest", "nowhere"), None).await;
    assert!(matches!(&missing, BrokerError::Connect { reason, .. } if reason.contains("nowhere")), "{missing}");

    server.rabbitmqctl(&["add_user", "reader", "Xsecret"]);
    let elsewhere = refused(&server.url_of("reader:Xsecret", "%2F"), None).await;
    assert!(matches!(&elsewhere, BrokerError::AccessRefused { .. }), "{elsewhere}");
    assert!(!format!("{elsewhere} {elsewhere:?}").contains("Xsecret"));

    let queue = fresh("q");
    server.rabbitmqctl(&["set_permissions", "reader", "", "amq.default-not", ".*"]);
    let reader = connect(&server.url_of("reader:Xsecret", "%2F")).await;
    let declaring = publish_one(&reader, &to_queue(&queue)).await;
    assert!(matches!(&declaring, Err(BrokerError::AccessRefused { .. })), "{declaring:?}");
    let sending = publish_one(&reader, &Arc::new(Route { routing_key: queue, ..Route::default() })).await;
    assert!(matches!(&sending, Err(BrokerError::AccessRefused { .. })), "{sending:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_or_somebody_else_is_a_failed_connection() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let nobody = refused(&format!("amqp://me:Xsecret@{free}//"), None).await;
    assert!(matches!(nobody, BrokerError::Connect { .. }), "{nobody}");

    let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = other.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = other.accept().await {
            let _ = socket.write_all(b"-ERR unknown command\r\n").await;
        }
    });
    let other = refused(&format!("amqp://me:Xsecret@{address}//"), None).await;
    assert!(matches!(other, BrokerError::Connect { .. }), "{other}");
}

/// lapin has a thread for each connection, which must not wait for a silent broker for ever.
#[tokio::test(flavor = "multi_thread")]
async fn giving_up_on_a_silent_broker_closes_the_connection() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("amqp://{}//", silent.local_addr().expect("an address"));
    let config = BrokerConfig::new(&url).expect("a URL");
    let mut connecting = Box::pin(broker::connect(&config, &config.urls[0]));
    let greeted = async {
        let (mut peer, _) = silent.accept().await.expect("a connection");
        let mut greeting = [0; 8];
        peer.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting[..4], b"AMQP");
        peer
    };
    let mut peer = tokio::select! {
        _ = &mut connecting => panic!("nobody answered"),
        peer = greeted => peer,
    };
    drop(connecting);
    assert_eq!(soon(peer.read(&mut [0; 1])).await.expect("an orderly end"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_whom_it_is_told_to_trust() {
    let server = server!();
    let trusting = Tls { ca_certs: Some(server.file("ca.pem")), ..Tls::default() };
    let queue = fresh("q");
    let broker = connect_with(&server.tls_url(), Some(trusting.clone())).await.expect("a trusted connection");
    publish_one(&broker, &to_queue(&queue)).await.expect("published");
    assert_eq!(Observer::new(server).await.drain(&queue).await.len(), 1);

    for distrust in [None, Some(Tls { ca_certs: Some(server.file("other-ca.pem")), ..Tls::default() })] {
        let error = refused(&server.tls_url(), distrust).await;
        // A machine may have no roots of its own, which is said of ca_certs.
        assert!(matches!(error, BrokerError::Tls { .. } | BrokerError::InvalidOption { .. }), "{error}");
    }
    let anyone = Tls { verify: false, ..Tls::default() };
    connect_with(&server.tls_url(), Some(anyone)).await.expect("verification is off");

    let client = |name: &str| Tls {
        certfile: Some(server.file(&format!("{name}.pem"))),
        keyfile: Some(server.file(&format!("{name}.key"))),
        ..trusting.clone()
    };
    connect_with(&server.tls_url(), Some(client("client"))).await.expect("a known client");
    let stranger = refused(&server.tls_url(), Some(client("stranger"))).await;
    assert!(matches!(stranger, BrokerError::Tls { .. } | BrokerError::Connect { .. }), "{stranger}");

    let plain = refused(&server.url().replace("amqp:", "amqps:"), Some(trusting)).await;
    assert!(matches!(plain, BrokerError::Tls { .. }), "{plain}");
    let unencrypted = refused(&server.tls_url().replace("amqps:", "amqp:"), None).await;
    assert!(matches!(unencrypted, BrokerError::Connect { .. }), "{unencrypted}");
}
