// What the Node smoke scripts share: the records they send, and a tally that prints one line per check.
// A script prints `CLIENT/CHECK,PASS` or `CLIENT/CHECK,FAIL` for each check and `CLIENT: N passed, N failed` at the end.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'

export const PARTITIONS = 3

// Headers as [name, value] pairs, so that a name may come twice.
export const RECORDS = [
  { key: 'key', value: 'value', headers: [['h', 'first'], ['other', ''], ['h', 'second']] },
  { key: null, value: 'null key', headers: [] },
  { key: 'null value', value: null, headers: [['h', 'only']] },
  { key: '', value: '', headers: [] },
  ...Array.from({ length: 16 }, (_, n) => ({ key: `bulk-${n}`, value: 'silt and stone '.repeat(70), headers: [['n', `${n}`]] }))
]

export class Checks {
  constructor (client) {
    this.client = client
    this.passed = 0
    this.failed = 0
    this.topic = `smoke-${client}-${randomBytes(4).toString('hex')}`
  }

  // Runs one named check, and goes on after a failure so that one run shows every defect.
  async check (name, body, limitSeconds = 30) {
    let timer
    try {
      const limit = new Promise((_resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`no result within ${limitSeconds} s`)), limitSeconds * 1000)
      })
      await Promise.race([body(), limit])
      this.passed++
      console.log(`${this.client}/${name},PASS`)
    } catch (error) {
      this.failed++
      console.error(`${this.client}/${name}: ${String(error.stack ?? error).split('\n').slice(0, 6).join(' | ')}`)
      console.log(`${this.client}/${name},FAIL`)
    } finally {
      clearTimeout(timer)
    }
  }

  finish () {
    console.log(`${this.client}: ${this.passed} passed, ${this.failed} failed`)
    process.exit(this.failed ? 1 : 0)
  }
}

export function equal (got, wanted, what = 'value') {
  assert.deepEqual(got, wanted, `${what}: got ${JSON.stringify(got)?.slice(0, 400)}, wanted ${JSON.stringify(wanted)?.slice(0, 400)}`)
}

// Waits for a condition: a Kafka cluster shows new and deleted topics a moment later.
export async function eventually (what, condition, limitSeconds = 10) {
  const deadline = Date.now() + limitSeconds * 1000
  for (;;) {
    if (await condition().catch(() => false)) return
    if (Date.now() > deadline) throw new Error(`not within ${limitSeconds} s: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}
