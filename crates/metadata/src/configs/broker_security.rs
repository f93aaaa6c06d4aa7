//! The broker settings of TLS, SASL and delegation tokens. None is served yet: they are refused at the start, and shown with Kafka's defaults.

use super::Check::{Any, AtLeast, Between, OneOf, OneOfAnyCase};
use super::ConfigType::{Boolean, Class, Double, Int, List, Long, Password, Short, String};
use super::{ConfigDef, def};

/// Sorted by name.
pub(super) static ALL: &[ConfigDef] = &[
    def(
        "delegation.token.expiry.check.interval.ms",
        Long,
        "3600000",
        AtLeast(1),
        "How often is looked for delegation tokens that have expired, in ms.",
    )
    .read_only(),
    def("delegation.token.expiry.time.ms", Long, "86400000", AtLeast(1), "How long a delegation token holds until it is renewed, in ms.")
        .read_only(),
    def("delegation.token.max.lifetime.ms", Long, "604800000", AtLeast(1), "How long a delegation token may be renewed, in ms.")
        .read_only(),
    def("delegation.token.secret.key", Password, "", Any, "Key that delegation tokens are made with; the same on all brokers.")
        .without_default()
        .read_only(),
    def(
        "principal.builder.class",
        Class,
        "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
        Any,
        "Class that makes a principal of what a client has proved.",
    ),
    def("sasl.client.callback.handler.class", Class, "", Any, "Class that answers what a SASL client is asked.")
        .without_default()
        .read_only(),
    def("sasl.enabled.mechanisms", List, "GSSAPI", Any, "SASL mechanisms that clients may use."),
    def("sasl.jaas.config", Password, "", Any, "Login of SASL connections, in the form of a JAAS file.").without_default().read_only(),
    def("sasl.kerberos.kinit.cmd", String, "/usr/bin/kinit", Any, "Path of Kerberos' kinit."),
    def("sasl.kerberos.min.time.before.relogin", Long, "60000", Any, "Least time between two Kerberos logins, in ms."),
    def("sasl.kerberos.principal.to.local.rules", List, "DEFAULT", Any, "Rules that make short names of Kerberos principals."),
    def("sasl.kerberos.service.name", String, "", Any, "Kerberos principal that the brokers run as.").without_default(),
    def("sasl.kerberos.ticket.renew.jitter", Double, "0.05", Any, "Share of chance in the time at which a ticket is renewed."),
    def("sasl.kerberos.ticket.renew.window.factor", Double, "0.8", Any, "Share of a ticket's life after which it is renewed."),
    def("sasl.login.callback.handler.class", Class, "", Any, "Class that answers what a SASL login is asked.")
        .without_default()
        .read_only(),
    def("sasl.login.class", Class, "", Any, "Class of SASL logins.").without_default().read_only(),
    def("sasl.login.connect.timeout.ms", Int, "", Any, "Time-out of connecting to the identity provider, in ms.")
        .without_default()
        .read_only(),
    def("sasl.login.read.timeout.ms", Int, "", Any, "Time-out of reading from the identity provider, in ms.").without_default().read_only(),
    def(
        "sasl.login.refresh.buffer.seconds",
        Short,
        "300",
        Any,
        "Time before its end at which a credential is renewed at the latest, in s.",
    ),
    def("sasl.login.refresh.min.period.seconds", Short, "60", Any, "Least time between two renewals of a credential, in s."),
    def("sasl.login.refresh.window.factor", Double, "0.8", Any, "Share of a credential's life after which it is renewed."),
    def("sasl.login.refresh.window.jitter", Double, "0.05", Any, "Share of chance in the time at which a credential is renewed."),
    def("sasl.login.retry.backoff.max.ms", Long, "10000", Any, "Longest pause between two tries to log in, in ms.").read_only(),
    def("sasl.login.retry.backoff.ms", Long, "100", Any, "First pause between two tries to log in, in ms.").read_only(),
    def("sasl.mechanism.controller.protocol", String, "GSSAPI", Any, "SASL mechanism between brokers and controllers.").read_only(),
    def("sasl.mechanism.inter.broker.protocol", String, "GSSAPI", Any, "SASL mechanism among brokers."),
    def(
        "sasl.oauthbearer.assertion.algorithm",
        String,
        "RS256",
        OneOfAnyCase(&["ES256", "RS256"]),
        "Algorithm that signs the assertion for the identity provider.",
    )
    .read_only(),
    def("sasl.oauthbearer.assertion.claim.aud", String, "", Any, "Audience in the assertion.").without_default().read_only(),
    def("sasl.oauthbearer.assertion.claim.exp.seconds", Int, "300", Between(0, 86_400), "How long the assertion holds, in s.").read_only(),
    def("sasl.oauthbearer.assertion.claim.iss", String, "", Any, "Issuer in the assertion.").without_default().read_only(),
    def("sasl.oauthbearer.assertion.claim.jti.include", Boolean, "false", Any, "Whether each assertion gets an id of its own.").read_only(),
    def(
        "sasl.oauthbearer.assertion.claim.nbf.seconds",
        Int,
        "60",
        Between(0, 3_600),
        "How long before now the assertion begins to hold, in s.",
    )
    .read_only(),
    def("sasl.oauthbearer.assertion.claim.sub", String, "", Any, "Subject in the assertion.").without_default().read_only(),
    def("sasl.oauthbearer.assertion.file", String, "", Any, "File with an assertion made before.").without_default().read_only(),
    def("sasl.oauthbearer.assertion.private.key.file", String, "", Any, "File with the key that signs assertions, as PEM.")
        .without_default()
        .read_only(),
    def("sasl.oauthbearer.assertion.private.key.passphrase", Password, "", Any, "Passphrase of that key.").without_default().read_only(),
    def("sasl.oauthbearer.assertion.template.file", String, "", Any, "File with more headers and claims of the assertion.")
        .without_default()
        .read_only(),
    def("sasl.oauthbearer.client.credentials.client.id", String, "", Any, "Id of the client that asks for tokens.")
        .without_default()
        .read_only(),
    def("sasl.oauthbearer.client.credentials.client.secret", Password, "", Any, "Secret of the client that asks for tokens.")
        .without_default()
        .read_only(),
    def("sasl.oauthbearer.clock.skew.seconds", Int, "30", Any, "How far the identity provider's clock may be off, in s.").read_only(),
    def("sasl.oauthbearer.expected.audience", List, "", Any, "Audiences of which a token must name one.").read_only(),
    def("sasl.oauthbearer.expected.issuer", String, "", Any, "Issuer that a token must name.").without_default().read_only(),
    def("sasl.oauthbearer.jwks.endpoint.refresh.ms", Long, "3600000", Any, "How often the identity provider's keys are fetched, in ms.")
        .read_only(),
    def(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
        Long,
        "10000",
        Any,
        "Longest pause between two tries to fetch the keys, in ms.",
    )
    .read_only(),
    def("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", Long, "100", Any, "First pause between two tries to fetch the keys, in ms.")
        .read_only(),
    def("sasl.oauthbearer.jwks.endpoint.url", String, "", Any, "Where the identity provider's keys are.").without_default().read_only(),
    def(
        "sasl.oauthbearer.jwt.retriever.class",
        Class,
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
        Any,
        "Class that fetches tokens.",
    )
    .read_only(),
    def(
        "sasl.oauthbearer.jwt.validator.class",
        Class,
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
        Any,
        "Class that checks tokens.",
    )
    .read_only(),
    def("sasl.oauthbearer.scope", String, "", Any, "Scopes that a token is asked for.").without_default().read_only(),
    def("sasl.oauthbearer.scope.claim.name", String, "scope", Any, "Name of the claim with a token's scope.").read_only(),
    def("sasl.oauthbearer.sub.claim.name", String, "sub", Any, "Name of the claim with a token's subject.").read_only(),
    def("sasl.oauthbearer.token.endpoint.url", String, "", Any, "Where tokens are had.").without_default().read_only(),
    def("sasl.server.callback.handler.class", Class, "", Any, "Class that answers what a SASL server asks.").without_default().read_only(),
    def("sasl.server.max.receive.size", Int, "524288", Any, "Largest frame before a connection is authenticated, bytes.").read_only(),
    def("security.providers", String, "", Any, "Classes that provide security algorithms.").without_default().read_only(),
    def("ssl.allow.dn.changes", Boolean, "false", Any, "Whether a new certificate may have another distinguished name.").read_only(),
    def("ssl.allow.san.changes", Boolean, "false", Any, "Whether a new certificate may have other alternative names.").read_only(),
    def("ssl.cipher.suites", List, "", Any, "Cipher suites that may be used; empty for the usual ones."),
    def(
        "ssl.client.auth",
        String,
        "none",
        OneOf(&["required", "requested", "none"]),
        "Whether clients must show a certificate: required, requested or none.",
    ),
    def("ssl.enabled.protocols", List, "TLSv1.2,TLSv1.3", Any, "Versions of TLS that may be used."),
    def("ssl.endpoint.identification.algorithm", String, "https", Any, "How the name in a server's certificate is checked."),
    def("ssl.engine.factory.class", Class, "", Any, "Class that makes TLS engines.").without_default(),
    def("ssl.key.password", Password, "", Any, "Password of the private key.").without_default(),
    def("ssl.keymanager.algorithm", String, "SunX509", Any, "Algorithm of the key manager."),
    def("ssl.keystore.certificate.chain", Password, "", Any, "Certificates of the broker, as PEM.").without_default(),
    def("ssl.keystore.key", Password, "", Any, "Private key of the broker, as PEM.").without_default(),
    def("ssl.keystore.location", String, "", Any, "File with the broker's key and certificates.").without_default(),
    def("ssl.keystore.password", Password, "", Any, "Password of that file.").without_default(),
    def("ssl.keystore.type", String, "JKS", Any, "Format of that file: JKS, PKCS12 or PEM."),
    def("ssl.principal.mapping.rules", String, "DEFAULT", Any, "Rules that make short names of the names in clients' certificates.")
        .read_only(),
    def("ssl.protocol", String, "TLSv1.3", Any, "Version of TLS that is preferred."),
    def("ssl.provider", String, "", Any, "Security provider of TLS connections.").without_default(),
    def("ssl.secure.random.implementation", String, "", Any, "Source of random numbers for TLS.").without_default(),
    def("ssl.trustmanager.algorithm", String, "PKIX", Any, "Algorithm of the trust manager."),
    def("ssl.truststore.certificates", Password, "", Any, "Certificates that are trusted, as PEM.").without_default(),
    def("ssl.truststore.location", String, "", Any, "File with the certificates that are trusted.").without_default(),
    def("ssl.truststore.password", Password, "", Any, "Password of that file.").without_default(),
    def("ssl.truststore.type", String, "JKS", Any, "Format of that file: JKS, PKCS12 or PEM."),
];
