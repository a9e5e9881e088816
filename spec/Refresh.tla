------------------------------ MODULE Refresh ------------------------------
(* The refresh protocol of refresh.md: some nodes, one record in one store.                            *)
(*                                                                                                     *)
(* There is no clock in this model. Time is what a node may believe: a window (the ttl of an answer,    *)
(* the back-off of a failure) ends at any moment, a lock whose holder lives may look expired, a node    *)
(* may be paused anywhere. So what holds here holds for every offset and every rate of every clock.     *)
(*                                                                                                     *)
(* A request is on its way until it arrives: at once, late, twice, or never. Its reply may be lost, and *)
(* then the node reads back. A version is the contents of the record (as an ETag is), which the nonce   *)
(* `id` makes unique. Faults have a budget, so that every behaviour comes to rest.                       *)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS
    Nodes, None,
    Faults,   \* how many, of any kind: a crash, a live leader's lease that looks expired, a failing load, a renewal,
              \* a request or reply that is lost, late or doubled, a record that somebody deletes or garbles
    Windows,  \* how many times an answer may grow old
    NoPublishCondition,          \* the broken variants, FALSE in the protocol:
    LockRecreatedAfterDeletion,  \*   a claim deletes and creates the record, and its versions count from 1 again
    NoNonce,                     \*   versions derive from contents that may repeat
    NewestForgotten,             \*   what the store holds is taken for the newest answer
    WindowIgnored,               \*   claims in spite of a fresh answer, or of a back-off
    NoTakeover,                  \*   a lock whose holder is dead is waited for
    NoHealing                    \*   bytes that are no record are left alone

VARIABLES
    store,   \* rec, what it holds; hot: the window of that answer, or failure, has not ended
    net,     \* requests on their way
    flight,  \* per node: what it is doing
    held,    \* per node: the newest answer it knows; 0: none
    made,    \* answers made so far: the n-th is n
    budget,  \* faults and windows left
    given,   \* ghost: per node, the newest answer that a caller got from this process
    spare,   \* ghost: 1 + leases and records lost - claims landed, since the last window ended
    bad      \* ghost: the invariants that a step has broken

vars == <<store, net, flight, held, made, budget, given, spare, bad>>

\* Ghosts in the values: `name` of a write, its `claim` (the name of the claim it belongs to), and the write `on`
\* whose record it was decided; in the store, the name and the claim of the write that made this state of it.
Absent == [kind |-> "absent", ans |-> 0, lock |-> None, failed |-> FALSE, id |-> 0, ver |-> 0]
NoWrite == [what |-> "none", match |-> Absent, new |-> Absent, name |-> 0, claim |-> 0, on |-> 0]
Idle == [pc |-> "idle", write |-> NoWrite, heard |-> FALSE, lease |-> FALSE, won |-> FALSE]

Init ==
    /\ store = [rec |-> Absent, hot |-> FALSE, name |-> 0, claim |-> 0]
    /\ net = {} /\ made = 0 /\ spare = 1 /\ bad = {}
    /\ flight = [n \in Nodes |-> Idle]
    /\ held = [n \in Nodes |-> 0] /\ given = [n \in Nodes |-> 0]
    /\ budget = [fault |-> Faults, window |-> Windows]

rec == store.rec
Locked == rec.lock # None
Good == rec.kind = "record" /\ rec.ans > 0 /\ ~Locked /\ ~rec.failed
Newest(a, b) == IF a > b THEN a ELSE b
Spend(f) == budget[f] > 0 /\ budget' = [budget EXCEPT ![f] = @ - 1]
Version(r) == IF LockRecreatedAfterDeletion THEN <<r.kind, r.ver>> ELSE r

\* The smallest name that stands nowhere: as good as one that was never given, and it keeps the states few.
Names(w) == {w.name, w.claim, w.on, w.match.id, w.new.id}
Taken == {store.name, store.claim, rec.id} \cup UNION {Names(flight[n].write) : n \in Nodes}
         \cup UNION {Names(m.write) : m \in net}
Fresh == CHOOSE i \in 1..30 : i \notin Taken /\ \A j \in 1..(i - 1) : j \in Taken
Id == IF NoNonce THEN 0 ELSE Fresh
Ver(last) == IF LockRecreatedAfterDeletion THEN last + 1 ELSE 0

------------------------------------------------------------------------------
(* What a node does. *)

\* n knows the newest of: the record's answer, the one it had, and its own; and gives it to whoever asks.
Learn(n, own) ==
    LET mine == Newest(held[n], own)
        best == IF NewestForgotten /\ rec.ans > 0 THEN rec.ans ELSE Newest(mine, rec.ans)
    IN  /\ held' = [held EXCEPT ![n] = best]
        /\ given' = [given EXCEPT ![n] = Newest(@, best)]
        /\ bad' = IF best < given[n] THEN bad \cup {"I3"} ELSE bad

Sent(n, w) == [from |-> n, write |-> w]
Send(n, w) ==
    /\ flight' = [flight EXCEPT ![n] = [pc |-> "waiting", write |-> w, heard |-> FALSE, lease |-> @.lease,
                                            won |-> @.won /\ w.claim = @.write.claim]]
    /\ net' = net \cup {Sent(n, w)}

Lead(n) ==
    LET w == flight[n].write
    IN  flight' = [flight EXCEPT ![n] = [pc |-> "loading", heard |-> FALSE, lease |-> TRUE, won |-> @.won,
                     write |-> [w EXCEPT !.what = "none", !.match = Absent, !.on = w.name]]]
Land(n) == flight' = [flight EXCEPT ![n] = Idle]

HolderLives == \E n \in Nodes : flight[n].won /\ flight[n].write.claim = store.claim
Quiet == rec.kind = "record" /\ ~Locked /\ store.hot /\ ~WindowIgnored

\* Fresh, backing off, or led by somebody else: what is known is served, and nothing is done.
Serve(n) ==
    /\ flight[n].pc = "idle" /\ (Quiet \/ Locked) /\ Learn(n, 0)
    /\ UNCHANGED <<store, net, flight, made, budget, spare>>

Claim(n) ==
    /\ flight[n].pc = "idle" /\ ~Quiet /\ Learn(n, 0)
    /\ NoHealing => rec.kind # "garbage"
    /\ IF ~Locked THEN UNCHANGED budget
       ELSE IF HolderLives THEN Spend("fault") ELSE ~NoTakeover /\ UNCHANGED budget
    /\ LET new == [kind |-> "record", ans |-> held'[n], lock |-> n, failed |-> rec.failed,
                   id |-> Id, ver |-> Ver(0)]
       IN  Send(n, [what |-> "claim", match |-> rec, new |-> new, name |-> Fresh, claim |-> Fresh, on |-> store.name])
    /\ UNCHANGED <<store, made, spare>>

\* What follows once a write of n has landed.
GoOn(n) ==
    IF flight[n].write.what = "publish" THEN Land(n) /\ Learn(n, flight[n].write.new.ans)
    ELSE Lead(n) /\ UNCHANGED <<held, given, bad>>

\* Only what the store confirms is believed ...
Hear(n) ==
    /\ flight[n].pc = "waiting" /\ flight[n].heard /\ GoOn(n)
    /\ UNCHANGED <<store, net, made, budget, spare>>

\* ... all else is read back: whether it was refused, or the reply was lost, or the request was, or is late.
ReadBack(n) ==
    /\ flight[n].pc = "waiting" /\ ~flight[n].heard
    /\ (IF Sent(n, flight[n].write) \in net THEN Spend("fault") ELSE UNCHANGED budget)
    /\ LET w == flight[n].write
           own == IF w.what = "publish" THEN w.new.ans ELSE 0
       IN  IF rec.kind = "record" /\ rec.id = w.new.id THEN GoOn(n) /\ UNCHANGED net
           ELSE IF Version(rec) = Version(w.match)
           THEN Send(n, [w EXCEPT !.on = store.name]) /\ UNCHANGED <<held, given, bad>>
           ELSE /\ Learn(n, own) /\ UNCHANGED net
                /\ IF w.what = "renew"
                   THEN flight' = [flight EXCEPT ![n] = [@ EXCEPT !.pc = "loading", !.lease = FALSE]]
                   ELSE Land(n)
    /\ UNCHANGED <<store, made, spare>>

\* The claim of n stands: it is replaced by `new`.
Replace(n, w, new) ==
    LET last == flight[n].write
    IN  Send(n, [what |-> w, match |-> last.new, new |-> new, name |-> Fresh, claim |-> last.claim, on |-> last.on])

Publish(n, answer, failed) ==
    Replace(n, "publish", [kind |-> "record", ans |-> answer, lock |-> None, failed |-> failed,
                           id |-> Id, ver |-> Ver(flight[n].write.new.ver)])

Load(n) ==
    /\ flight[n].pc = "loading" /\ made' = made + 1
    /\ IF flight[n].lease THEN Publish(n, made', FALSE) /\ UNCHANGED <<held, given, bad>>
       ELSE Land(n) /\ Learn(n, made') /\ UNCHANGED net        \* returned, never published
    /\ UNCHANGED <<store, budget, spare>>

LoadFails(n) ==
    /\ flight[n].pc = "loading" /\ flight[n].lease /\ Spend("fault")
    /\ Publish(n, flight[n].write.new.ans, TRUE)
    /\ UNCHANGED <<store, made, held, given, spare, bad>>

Renew(n) ==
    /\ flight[n].pc = "loading" /\ flight[n].lease /\ Spend("fault")
    /\ Replace(n, "renew", [flight[n].write.new EXCEPT !.id = Id, !.ver = Ver(@)])
    /\ UNCHANGED <<store, made, held, given, spare, bad>>

------------------------------------------------------------------------------
(* What happens to it. *)

\* A request arrives: the only place where a node changes the record. `how`: "well"; "twice", once more later on;
\* or the reply is "lost". A refusal need not be heard: it is read back like everything that is not certain.
Arrive(m, how) ==
    LET w == m.write
        lands == Version(rec) = Version(w.match) \/ (w.what = "publish" /\ NoPublishCondition)
        heard == flight[m.from].pc = "waiting" /\ flight[m.from].write.name = w.name
        \* Who deletes the record takes the protocol's memory with it: absent is absent, however often.
        unseen == w.on # store.name /\ w.match.kind # "absent"
    IN  /\ IF how = "well" THEN UNCHANGED budget ELSE lands /\ Spend("fault")
        /\ how = "lost" => heard
        /\ net' = IF how = "twice" THEN net ELSE net \ {m}
        /\ IF ~lands THEN UNCHANGED <<store, flight, spare, bad>> ELSE
           /\ store' = [rec |-> w.new, hot |-> w.what = "publish", name |-> w.name, claim |-> w.claim]
           /\ spare' = IF w.what = "claim" /\ ~Locked THEN spare - 1 ELSE spare
           /\ flight' = [flight EXCEPT ![m.from] =
                [@ EXCEPT !.won = @ \/ flight[m.from].write.claim = w.claim,
                          !.heard = heard /\ how # "lost"]]
           /\ bad' = bad \cup (IF w.what = "claim" /\ unseen THEN {"I1"} ELSE {})
                         \cup (IF w.what # "claim" /\ (unseen \/ store.claim # w.claim) THEN {"I2"} ELSE {})
                         \cup (IF w.what = "publish" /\ w.new.ans < rec.ans THEN {"I3"} ELSE {})
        /\ UNCHANGED <<held, made, given>>

Lose(m) ==
    /\ Spend("fault") /\ net' = net \ {m}
    /\ UNCHANGED <<store, flight, held, made, given, spare, bad>>

Crash(n) ==
    /\ flight[n].pc # "idle" /\ Spend("fault") /\ Land(n)
    /\ held' = [held EXCEPT ![n] = 0] /\ given' = [given EXCEPT ![n] = 0]
    /\ UNCHANGED <<store, net, made, spare, bad>>

Spoil(kind) ==
    /\ Spend("fault") /\ spare' = spare + 1
    /\ store' = [rec |-> [Absent EXCEPT !.kind = kind, !.id = IF kind = "absent" THEN 0 ELSE Fresh],
                 hot |-> FALSE, name |-> Fresh, claim |-> 0]
    /\ UNCHANGED <<net, flight, held, made, given, bad>>

WindowEnds ==
    /\ store.hot /\ (IF rec.failed THEN UNCHANGED budget ELSE Spend("window"))
    /\ store' = [store EXCEPT !.hot = FALSE] /\ spare' = 1
    /\ UNCHANGED <<net, flight, held, made, given, bad>>

Step(n) == Serve(n) \/ Claim(n) \/ Hear(n) \/ ReadBack(n) \/ Load(n)
Next ==
    \/ \E n \in Nodes : Step(n) \/ LoadFails(n) \/ Renew(n) \/ Crash(n)
    \/ \E m \in net : Lose(m) \/ \E how \in {"well", "twice", "lost"} : Arrive(m, how)
    \/ Spoil("garbage") \/ Spoil("absent") \/ WindowEnds

Safety == Init /\ [][Next]_vars

\* Who can do something does it some day: nodes go on, requests arrive, back-offs end.
Live ==
    /\ Safety
    /\ \A n \in Nodes : WF_vars(Step(n))
    /\ WF_vars(\E m \in net : Arrive(m, "well"))
    /\ WF_vars(rec.failed /\ WindowEnds)

------------------------------------------------------------------------------
(* The invariants of refresh.md. *)

I1 == "I1" \notin bad /\ \A n \in Nodes : flight[n].pc = "loading" => flight[n].won
I2 == "I2" \notin bad
I3 == "I3" \notin bad
I5 == spare >= 0
I6 == Locked ~> ~Locked
I8 == ~Good ~> Good

Alike == Permutations(Nodes)
==============================================================================
