// A js-libp2p peer of a p2pcity node: says hello, pings, identifies, joins the transactions topic,
// decodes a gossip batch and verifies its signatures with nothing of ours: cborg and Node's own
// crypto. Prints one JSON object with what it found; any failure is an exception and exit code 1.
//
// usage: node peer.mjs MULTIADDR SEED_HEX NETWORK_HEX PARAMETERS_HEX

// js-libp2p 3 wants Node 22's Promise.withResolvers; Node 20 gets it here, before anything else.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

const { createHash, createPrivateKey, createPublicKey, sign, verify } = await import('node:crypto')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { generateKeyPairFromSeed } = await import('@libp2p/crypto/keys')
const { gossipsub } = await import('@libp2p/gossipsub')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { tcp } = await import('@libp2p/tcp')
const { multiaddr } = await import('@multiformats/multiaddr')
const cbor = await import('cborg')
const { createLibp2p } = await import('libp2p')

const HELLO_PROTOCOL = '/p2pcity/hello/1'
const HELLO_TYPE = 'application/p2pcity-hello+cbor'
const TRANSACTION_TYPE = 'application/p2pcity-transaction+cbor'
const DEADLINE_MS = 20_000

const [address, seedHex, networkHex, parametersHex] = process.argv.slice(2)
const seed = Buffer.from(seedHex, 'hex')
const network = Buffer.from(networkHex, 'hex')
const topic = `/p2pcity/${networkHex.slice(0, 8)}/transactions/1`

setTimeout(() => { throw new Error('the deadline is over') }, DEADLINE_MS).unref()

const fail = (what) => { throw new Error(what) }
const bytes = (value) => Buffer.from(value)

// -- COSE_Sign1 (RFC 9052) with Ed25519 keys as they stand in `kid` ------------------------------

const privateKey = createPrivateKey({
  key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]),
  format: 'der',
  type: 'pkcs8'
})
const publicBytes = createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(-32)
const publicKeyOf = (raw) => createPublicKey({
  key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), bytes(raw)]),
  format: 'der',
  type: 'spki'
})

const signatureInput = (protectedBytes, payload) =>
  bytes(cbor.encode(['Signature1', protectedBytes, new Uint8Array(0), payload]))

function signCose (contentType, payload) {
  const header = cbor.encode(new Map([[1, -8], [3, contentType], [4, new Uint8Array(publicBytes)]]))
  const signature = sign(null, signatureInput(header, payload), privateKey)
  const body = cbor.encode([header, new Map(), payload, new Uint8Array(signature)])
  return Buffer.concat([Buffer.from([0xd2]), bytes(body)])
}

const decode = (data) => cbor.decode(new Uint8Array(data), {
  strict: true, allowIndefinite: false, allowUndefined: false, rejectDuplicateMapKeys: true, useMaps: true
})

function verifyCose (data, contentType) {
  if (data[0] !== 0xd2) fail('no tag 18')
  const [protectedBytes, unprotected, payload, signature] = decode(data.subarray(1))
  if (unprotected.size !== 0) fail('the unprotected header is not empty')
  const header = decode(protectedBytes)
  if (header.get(1) !== -8 || header.get(3) !== contentType) fail('wrong header')
  const input = signatureInput(protectedBytes, payload)
  if (!verify(null, input, publicKeyOf(header.get(4)), signature)) fail('wrong signature')
  return { key: bytes(header.get(4)), payload: decode(payload), input }
}

// -- hello: frames of `length u32 | kind u8 | body` ----------------------------------------------

function frame (body) {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(body.length + 1)
  return Buffer.concat([head, body])
}

async function * framesOf (stream) {
  let buffer = Buffer.alloc(0)
  for await (const chunk of stream) {
    buffer = Buffer.concat([buffer, bytes(chunk.subarray())])
    while (buffer.length >= 5 && buffer.length >= 4 + buffer.readUInt32BE()) {
      const end = 4 + buffer.readUInt32BE()
      if (buffer[4] !== 0) fail('not a whole frame')
      yield buffer.subarray(5, end)
      buffer = buffer.subarray(end)
    }
  }
}

async function sayHello (node) {
  const stream = await node.dialProtocol(multiaddr(address), HELLO_PROTOCOL)
  const hello = cbor.encode({
    network: new Uint8Array(network),
    protocol: 1,
    protocol_oldest: 1,
    release: 'js-libp2p 3.3.11',
    parameters: new Uint8Array(Buffer.from(parametersHex, 'hex')),
    incarnation: new Uint8Array(16),
    height: 0,
    addresses: [],
    time: Date.now()
  })
  stream.send(new Uint8Array(frame(signCose(HELLO_TYPE, hello))))
  const frames = framesOf(stream)
  const theirs = verifyCose((await frames.next()).value, HELLO_TYPE)
  const answer = decode((await frames.next()).value)
  if (answer.get('ok') !== true) fail(`refused: ${answer.get('reason')} ${answer.get('detail')}`)
  stream.send(new Uint8Array(frame(bytes(cbor.encode({ ok: true, reason: '', detail: '' })))))
  await stream.close()
  if (!bytes(theirs.payload.get('network')).equals(network)) fail('another network')
  return { key: theirs.key.toString('hex'), height: theirs.payload.get('height') }
}

// -- gossip --------------------------------------------------------------------------------------

function readBatch (data) {
  return decode(data).map((carried) => {
    const [cose, events] = decode(carried)
    const { key, payload, input } = verifyCose(bytes(cose), TRANSACTION_TYPE)
    if (payload.get('count') !== events.length) fail('wrong count')
    if (!bytes(payload.get('network')).equals(network)) fail('a transaction of another network')
    return {
      id: createHash('sha256').update(input).digest('hex'),
      author: key.toString('hex'),
      events: events.map((event) => decode(event)[1].get('type'))
    }
  })
}

// -- the run -------------------------------------------------------------------------------------

const node = await createLibp2p({
  privateKey: await generateKeyPairFromSeed('Ed25519', new Uint8Array(seed)),
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping(), pubsub: gossipsub({ allowPublishToZeroTopicPeers: true }) }
})
const identified = new Promise((resolve) => {
  node.addEventListener('peer:identify', (event) => resolve(event.detail), { once: true })
})
const batch = new Promise((resolve) => {
  node.services.pubsub.addEventListener('message', (event) => {
    if (event.detail.topic === topic) resolve(event.detail.data)
  })
})
node.services.pubsub.subscribe(topic)
await node.dial(multiaddr(address))
const hello = await sayHello(node)
const pingMs = await node.services.ping.ping(multiaddr(address))
const { agentVersion, protocols } = await identified
const data = await batch
const transactions = readBatch(data)
// The same batch once more, signed by this peer: the node takes messages of js-libp2p too.
await node.services.pubsub.publish(topic, data)
console.log(JSON.stringify({ hello, pingMs, agentVersion, protocols, transactions }))
// Time for the message to leave; the node on the other side ends this process's wait.
await new Promise((resolve) => { process.stdin.once('data', resolve); process.stdin.resume() })
await node.stop()
process.exit(0)
