// Smoke test of @platformatic/kafka. Usage: node smoke_platformatic.mjs BOOTSTRAP
import { Admin, Consumer, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'
import zlib from 'node:zlib'
import { Checks, PARTITIONS, RECORDS, equal, eventually } from './checks.mjs'

const checks = new Checks('platformatic')
const { topic } = checks
const groupId = `${topic}-group`
const base = { clientId: 'smoke', bootstrapBrokers: [process.argv[2]], retries: 20, retryDelay: 100 }
const admin = new Admin(base)

// This client's headers are a map, so a name comes once.
const once = headers => Object.fromEntries(headers)
const wanted = RECORDS.map(r => ({ key: r.key, value: r.value, headers: once(r.headers) }))
const plain = ({ key, value, headers }) => ({ key: key ?? null, value: value ?? null, headers: Object.fromEntries(headers) })

async function produce (compression, partition, options = {}) {
  const producer = new Producer({ ...base, serializers: stringSerializers, ...options })
  try {
    const messages = wanted.map(r => ({ topic, partition, key: r.key ?? undefined, value: r.value ?? undefined, headers: r.headers }))
    const { offsets } = await producer.send({ messages, acks: -1, compression })
    return Number(offsets[0].offset)
  } finally {
    await producer.close()
  }
}

async function consume (group, count, options) {
  const consumer = new Consumer({
    ...base, groupId: group, autocommit: false, deserializers: stringDeserializers,
    sessionTimeout: 10000, heartbeatInterval: 500, maxWaitTime: 100
  })
  const messages = []
  try {
    const stream = await consumer.consume({ topics: [topic], ...options })
    stream.on('data', message => messages.push(message))
    await eventually(`${count} records`, async () => messages.length >= count, 20)
    await new Promise(resolve => setTimeout(resolve, 300))
    const last = new Map(messages.map(m => [m.partition, m]))
    for (const message of last.values()) await message.commit()
  } finally {
    await consumer.close(true)
  }
  equal(messages.length, count, 'records')
  return messages
}

await checks.check('create-topic', async () => {
  const [created] = await admin.createTopics({ topics: [topic], partitions: PARTITIONS, replicas: 1 })
  equal([created.name, created.partitions], [topic, PARTITIONS], 'created')
  await eventually('topic is visible', async () => (await admin.listTopics()).includes(topic))
})

const codecs = ['none', 'gzip', 'snappy', 'lz4', ...(zlib.zstdCompressSync ? ['zstd'] : [])]
for (const [index, codec] of codecs.entries()) {
  await checks.check(`produce-${codec}`, async () => equal(await produce(codec, 0), index * RECORDS.length, 'base offset'))
}
const total = codecs.length * RECORDS.length

await checks.check('produce-idempotent', () => produce('lz4', 1, { idempotent: true }))

await checks.check('group-consume-commit', async () => {
  const messages = await consume(groupId, total + RECORDS.length, { mode: 'earliest' })
  equal(messages.filter(m => m.partition === 0).map(plain), codecs.flatMap(() => wanted), 'partition 0')
})

await checks.check('group-rejoin-from-commit', async () => {
  await produce('snappy', 2)
  const messages = await consume(groupId, RECORDS.length, { mode: 'committed', fallbackMode: 'earliest' })
  equal(new Set(messages.map(m => m.partition)), new Set([2]), 'partitions of new records')
})

await checks.check('seek-offset', async () => {
  const offsets = [[0, 7], [1, RECORDS.length], [2, RECORDS.length]].map(([partition, offset]) => ({ topic, partition, offset: BigInt(offset) }))
  const messages = await consume(`${groupId}-seek`, total - 7, { mode: 'manual', offsets })
  equal(messages.map(m => Number(m.offset)), Array.from({ length: total - 7 }, (_, n) => n + 7), 'offsets after seek')
})

await checks.check('seek-time', async () => {
  const offsets = [0, 1, 2].map(partition => ({ topic, partition, offset: partition === 0 ? 0n : BigInt(RECORDS.length) }))
  const messages = await consume(`${groupId}-time`, total, { mode: 'manual', offsets })
  const { timestamp } = messages[RECORDS.length]
  const [listed] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }] })
  equal(Number(listed.partitions[0].offset), Number(messages.find(m => m.timestamp >= timestamp).offset), 'offset for time')
})

await checks.check('list-describe-topic', async () => {
  const metadata = await admin.metadata({ topics: [topic] })
  equal([metadata.topics.get(topic).partitions.length, metadata.brokers.size], [PARTITIONS, 1], 'partitions and brokers')
  const [described] = await admin.describeConfigs({ resources: [{ resourceType: 2, resourceName: topic, configurationKeys: null }] })
  equal(described.configs.find(c => c.name === 'cleanup.policy').value, 'delete', 'cleanup.policy')
})

await checks.check('list-describe-group', async () => {
  equal((await admin.listGroups({ types: ['classic'] })).has(groupId), true, 'group is listed')
  equal((await admin.describeGroups({ groups: [groupId] })).get(groupId).state, 'EMPTY', 'state')
  const [group] = await admin.listConsumerGroupOffsets({ groups: [groupId] })
  equal(Number(group.topics[0].partitions.find(p => p.partitionIndex === 0).committedOffset), total, 'committed offset')
})

await checks.check('delete-records', async () => {
  const [deleted] = await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 5n }] }] })
  equal(Number(deleted.partitions[0].lowWatermark), 5, 'low watermark')
})

await checks.check('delete-group', () => admin.deleteGroups({ groups: [groupId] }))

await checks.check('delete-topic', async () => {
  await admin.deleteTopics({ topics: [topic] })
  await eventually('topic is gone', async () => !(await admin.listTopics()).includes(topic))
})

checks.finish()
