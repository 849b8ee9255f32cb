-- Telling the end of a job: `callbacks` has the jobs whose end is to be told and whose callback is not submitted yet.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals change (records)
-- luacheck: read globals write (submission)

-- callback: {id, job}. Submit the job that tells the end of `id`: once, whoever asks and however often.
-- Replies 'accepted' | 'known'.
function T.callback(a)
  if not redis.call('ZSCORE', KEY.callbacks, a.id) then return 'known' end
  change('ZREM', KEY.callbacks, a.id)
  write({ a.job })
  return 'accepted'
end
