//! The transactional part of Produce: before a batch may begin a transaction in a partition, the coordinator is asked whether the partition belongs to
//! the transaction (version 11 and below), or told that it does (transactions version 2). KIP-890.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use siltstone_coordinator::{ProducerIdAndEpoch, TopicPartition, TransactionError, TransactionVersion, TxnProducer};
use siltstone_log::AppendOrigin;
use siltstone_log::batch::BatchHeader;
use siltstone_log::producers::VerificationGuard;
use siltstone_replica::ProducePartition;

use super::{Produce, refuse};
use crate::error_codes::transaction_error;
use crate::txn_verify;

/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_FROM: i16 = 11;
/// First version of transactions version 2: partitions join the transaction by being produced to.
const TRANSACTIONS_V2_FROM: i16 = 12;

/// A partition whose transaction must be asked for.
struct Question {
    /// Position among the parts.
    at: usize,
    partition: TopicPartition,
    guard: VerificationGuard,
}

impl Produce {
    /// Verifies the parts that would begin a transaction; those that may not be appended are taken out, with the reason in their place.
    pub(super) async fn verify(&mut self, parts: Vec<ProducePartition>, transactional_id: &str) -> Vec<ProducePartition> {
        let mut headers: Vec<Option<BatchHeader>> = Vec::with_capacity(parts.len());
        for part in &parts {
            let header = BatchHeader::parse(&part.records).ok();
            headers.push(header.filter(|header| header.is_transactional() && header.has_producer_id()));
        }
        let producers: BTreeSet<(i64, i16)> = headers.iter().flatten().map(|header| (header.producer_id, header.producer_epoch)).collect();
        let Some((producer_id, producer_epoch)) = producers.first().copied() else { return parts };
        if producers.len() > 1 {
            self.refuse_all(ResponseError::InvalidProducerIdMapping);
            self.appended.clear();
            return Vec::new();
        }
        let mut refused: Vec<bool> = vec![false; parts.len()];
        let questions = self.questions(&parts, &headers, &mut refused).await;
        let mut parts = parts;
        if !questions.is_empty() {
            let producer = ProducerIdAndEpoch { producer_id, producer_epoch };
            let who = TxnProducer { transactional_id: transactional_id.to_owned(), producer };
            let partitions: Vec<TopicPartition> = questions.iter().map(|question| question.partition.clone()).collect();
            let version = if self.version < TRANSACTIONS_V2_FROM { TransactionVersion::V1 } else { TransactionVersion::V2 };
            let answers = txn_verify::verify(&self.handlers.services, version, who, partitions).await;
            for (question, answer) in questions.into_iter().zip(answers) {
                match answer {
                    Ok(()) => parts[question.at].origin = AppendOrigin::VerifiedClient(question.guard),
                    Err(error) => {
                        refused[question.at] = true;
                        self.refuse_unverified(question.at, error);
                    }
                }
            }
        }
        self.keep(parts, &refused)
    }

    /// Which parts begin a transaction. Partitions that are not led here are refused at once.
    async fn questions(&mut self, parts: &[ProducePartition], headers: &[Option<BatchHeader>], refused: &mut [bool]) -> Vec<Question> {
        let bumps_epoch = self.version >= TRANSACTIONS_V2_FROM;
        let image = self.handlers.services.metadata.image();
        let mut questions = Vec::new();
        for (at, (part, header)) in parts.iter().zip(headers).enumerate() {
            let Some(header) = header else { continue };
            let producer = (header.producer_id, header.producer_epoch);
            match self.handlers.services.replicas.begin_verification(part.id, producer, header.base_sequence, bumps_epoch).await {
                Ok(None) => {}
                Ok(Some(guard)) => {
                    let topic = image.topic_by_id(part.id.topic_id).map_or("", |topic| topic.name.as_str()).into();
                    questions.push(Question { at, partition: TopicPartition { topic, partition: part.id.partition }, guard });
                }
                Err(error) => {
                    refused[at] = true;
                    let version = self.version;
                    if let Some(place) = self.place_of(at) {
                        refuse(place, &error, part.id, version, &image);
                    }
                }
            }
        }
        questions
    }

    fn refuse_unverified(&mut self, at: usize, error: TransactionError) {
        let version = self.version;
        let Some(place) = self.place_of(at) else { return };
        let (code, message) = produce_error(error, version);
        place.error_code = code.code();
        place.error_message = message.map(StrBytes::from_string);
    }

    /// What is left to append, and its places.
    fn keep(&mut self, parts: Vec<ProducePartition>, refused: &[bool]) -> Vec<ProducePartition> {
        let mut kept = refused.iter();
        self.appended.retain(|_| kept.next() == Some(&false));
        parts.into_iter().zip(refused).filter(|(_, refused)| !**refused).map(|(part, _)| part).collect()
    }
}

/// The coordinator's refusals in words that producers know how to take: what may pass becomes NOT_ENOUGH_REPLICAS, which they retry. Clients of
/// transactions version 2 know that the transaction before may still be ending.
fn produce_error(error: TransactionError, version: i16) -> (ResponseError, Option<String>) {
    let not_added = || (ResponseError::InvalidTxnState, Some("Partition was not added to the transaction".to_owned()));
    match error {
        TransactionError::ConcurrentTransactions if version >= TRANSACTIONS_V2_FROM => (transaction_error(error), None),
        TransactionError::ConcurrentTransactions
        | TransactionError::CoordinatorLoadInProgress
        | TransactionError::CoordinatorNotAvailable
        | TransactionError::NotCoordinator => {
            let why = transaction_error(error);
            let message = format!("Unable to verify the partition has been added to the transaction. Underlying error: {why}");
            (ResponseError::NotEnoughReplicas, Some(message))
        }
        TransactionError::InvalidTxnState => not_added(),
        TransactionError::TransactionAbortable if version < ABORTABLE_FROM => not_added(),
        TransactionError::ProducerFenced => (ResponseError::InvalidProducerEpoch, None),
        TransactionError::TransactionAbortable
        | TransactionError::InvalidRequest
        | TransactionError::InvalidTransactionTimeout
        | TransactionError::InvalidProducerIdMapping
        | TransactionError::TransactionalIdNotFound
        | TransactionError::UnknownServerError => (transaction_error(error), None),
    }
}
