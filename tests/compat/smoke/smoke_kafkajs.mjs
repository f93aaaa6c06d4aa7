// Smoke test of kafkajs. Usage: node smoke_kafkajs.mjs BOOTSTRAP
import kafkajs from 'kafkajs'
import snappy from 'kafkajs-snappy'
import { Checks, PARTITIONS, RECORDS, equal, eventually } from './checks.mjs'

const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = kafkajs
CompressionCodecs[CompressionTypes.Snappy] = snappy

const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50 } })
const checks = new Checks('kafkajs')
const { topic } = checks
const groupId = `${topic}-group`
const admin = kafka.admin()
await admin.connect()

// kafkajs takes repeated headers as an array value and gives them back grouped by name.
function grouped (headers) {
  const map = {}
  for (const [name, value] of headers) (map[name] ??= []).push(value)
  return Object.fromEntries(Object.entries(map).map(([name, values]) => [name, values.length > 1 ? values : values[0]]))
}

const wanted = RECORDS.map(r => ({ key: r.key, value: r.value, headers: grouped(r.headers) }))
const text = value => Array.isArray(value) ? value.map(text) : value?.toString() ?? null

async function produce (compression, partition, records, options = {}) {
  const producer = kafka.producer(options)
  await producer.connect()
  const [report] = await producer.send({ topic, acks: -1, compression, messages: records.map(r => ({ ...r, partition })) })
  await producer.disconnect()
  return Number(report.baseOffset)
}

// Joins the group, takes `count` records (none more may come) and leaves, committing as it goes.
async function consume (group, count, start = async () => {}) {
  const consumer = kafka.consumer({ groupId: group, sessionTimeout: 10000, heartbeatInterval: 500, maxWaitTimeInMs: 100 })
  const records = []
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommitThreshold: 1,
    eachMessage: async ({ partition, message }) => {
      records.push({ partition, offset: Number(message.offset), timestamp: message.timestamp, key: text(message.key), value: text(message.value), headers: Object.fromEntries(Object.entries(message.headers).map(([k, v]) => [k, text(v)])) })
    }
  })
  await start(consumer)
  try {
    await eventually(`${count} records`, async () => records.length >= count, 20)
    await new Promise(resolve => setTimeout(resolve, 300))
  } finally {
    await consumer.disconnect()
  }
  return records
}

await checks.check('create-topic', async () => {
  equal(await admin.createTopics({ waitForLeaders: false, topics: [{ topic, numPartitions: PARTITIONS }] }), true, 'created')
  await eventually('topic is visible', async () => (await admin.listTopics()).includes(topic))
  equal(await admin.createTopics({ waitForLeaders: false, topics: [{ topic }] }), false, 'created again')
})

const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }
for (const [index, [name, codec]] of Object.entries(codecs).entries()) {
  await checks.check(`produce-${name}`, async () => equal(await produce(codec, 0, wanted), index * RECORDS.length, 'base offset'))
}
const total = Object.keys(codecs).length * RECORDS.length

await checks.check('produce-idempotent', () => produce(CompressionTypes.GZIP, 1, wanted, { idempotent: true }))

await checks.check('group-consume-commit', async () => {
  const records = await consume(groupId, total + RECORDS.length)
  equal(records.length, total + RECORDS.length, 'records')
  const first = records.filter(r => r.partition === 0).map(({ key, value, headers }) => ({ key, value, headers }))
  equal(first, Object.keys(codecs).flatMap(() => wanted), 'partition 0')
  equal(records.filter(r => r.partition === 0).map(r => r.offset), Array.from({ length: total }, (_, n) => n), 'offsets')
})

await checks.check('group-rejoin-from-commit', async () => {
  await produce(CompressionTypes.Snappy, 2, wanted)
  const records = await consume(groupId, RECORDS.length)
  equal(records.map(r => r.partition), RECORDS.map(() => 2), 'partitions of new records')
})

await checks.check('seek-offset', async () => {
  const end = total - 7
  const records = await consume(`${groupId}-seek`, end, async consumer => {
    for (const partition of [1, 2]) consumer.seek({ topic, partition, offset: `${RECORDS.length}` })
    consumer.seek({ topic, partition: 0, offset: '7' })
  })
  const offsets = records.filter(r => r.partition === 0).map(r => r.offset)
  equal(offsets.slice(-end), Array.from({ length: end }, (_, n) => n + 7), 'offsets after seek')
})

await checks.check('seek-time', async () => {
  const records = (await consume(`${groupId}-time`, total)).filter(r => r.partition === 0)
  const stamp = records[RECORDS.length].timestamp
  const offsets = await admin.fetchTopicOffsetsByTimestamp(topic, Number(stamp))
  equal(Number(offsets.find(p => p.partition === 0).offset), records.find(r => r.timestamp >= stamp).offset, 'offset for time')
})

await checks.check('list-describe-topic', async () => {
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] })
  equal(metadata.topics[0].partitions.length, PARTITIONS, 'partitions')
  const described = await admin.describeConfigs({ resources: [{ type: 2, name: topic }], includeSynonyms: true })
  equal(described.resources[0].configEntries.find(e => e.configName === 'cleanup.policy').configValue, 'delete', 'cleanup.policy')
  equal((await admin.describeCluster()).brokers.length, 1, 'brokers')
})

await checks.check('alter-config', async () => {
  await admin.alterConfigs({ resources: [{ type: 2, name: topic, configEntries: [{ name: 'retention.ms', value: '123456789' }] }] })
  await eventually('the new value is described', async () => {
    const { resources } = await admin.describeConfigs({ resources: [{ type: 2, name: topic, configNames: ['retention.ms'] }] })
    return resources[0].configEntries[0].configValue === '123456789'
  })
})

await checks.check('create-partitions', async () => {
  await admin.createPartitions({ topicPartitions: [{ topic, count: PARTITIONS + 1 }] })
  await eventually('the new partition is visible', async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length === PARTITIONS + 1)
})

await checks.check('list-describe-group', async () => {
  equal((await admin.listGroups()).groups.some(g => g.groupId === groupId), true, 'group is listed')
  equal((await admin.describeGroups([groupId])).groups[0].state, 'Empty', 'state')
  const [offsets] = await admin.fetchOffsets({ groupId, topics: [topic] })
  equal(Number(offsets.partitions.find(p => p.partition === 0).offset), total, 'committed offset')
})

await checks.check('reset-offsets', async () => {
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '3' }] })
  const [offsets] = await admin.fetchOffsets({ groupId, topics: [topic] })
  equal(Number(offsets.partitions.find(p => p.partition === 0).offset), 3, 'committed offset')
})

await checks.check('delete-records', async () => {
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '5' }] })
  equal(Number((await admin.fetchTopicOffsets(topic)).find(p => p.partition === 0).low), 5, 'low watermark')
})

await checks.check('delete-group', () => admin.deleteGroups([groupId]))

await checks.check('delete-topic', async () => {
  await admin.deleteTopics({ topics: [topic] })
  await eventually('topic is gone', async () => !(await admin.listTopics()).includes(topic))
})

checks.finish()
