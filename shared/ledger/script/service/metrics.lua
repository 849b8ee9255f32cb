-- All values of a scrape, in one call.

-- luacheck: read globals KEY (keys)

-- metrics: {queues, states}. Replies {counters, counters of events, jobs per state, as `queues`, as `workers`}.
function T.metrics(a)
  local jobs = {}
  for i, state in ipairs(a.states) do jobs[i] = redis.call('ZCARD', KEY.state .. state) end
  local counters, event_counters = redis.call('HGETALL', KEY.counters), redis.call('HGETALL', KEY.event_counters)
  return { counters, event_counters, jobs, T.queues(a), T.workers() }
end
