-- What a scrape shows, in one call.

-- luacheck: read globals P (records)

-- metrics: {queues, states}. Replies {counters, counters of events, jobs a state, as `queues`, as `workers`}.
function T.metrics(a)
  local jobs = {}
  for i, state in ipairs(a.states) do jobs[i] = redis.call('ZCARD', P .. 'state:' .. state) end
  local counters, event_counters = redis.call('HGETALL', P .. 'counters'), redis.call('HGETALL', P .. 'event_counters')
  return { counters, event_counters, jobs, T.queues(a), T.workers() }
end
