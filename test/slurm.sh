#!/bin/sh
# slurm.sh - experts and evaluation as job arrays on a Slurm cluster, and a trial of that: `make slurm`, two minutes.
#
# On a cluster, in a folder that all nodes see, when MODEL has its base, index and clusters: a task an expert (here of 100),
# then a task a file (here of 26). JOB: the number that the first line prints. `-c 4` and `--threads 4`: four cores a task.
#
#   sbatch --array=0-99 --requeue --wrap 'exec ./train experts MODEL --only $SLURM_ARRAY_TASK_ID'
#   sbatch --requeue --wrap 'exec ./train finetune MODEL'
#   sbatch --array=0-25 -d afterany:JOB --wrap 'set -- data/test/*.txt; shift $SLURM_ARRAY_TASK_ID
#       exec ./run eval MODEL $1 --tsv part-$SLURM_ARRAY_TASK_ID.tsv'
#   sh test/slurm.sh add part-*.tsv
#
# - With `exec` it is train that Slurm signals: requeued or preempted, it saves a checkpoint, and the task goes on from
#   there. Behind a shell it is killed as soon as that has ended, before the checkpoint is written.
# - The same first line again trains what is missing, after tasks that failed or ran out of time: other experts are skipped.
# - Not afterok: it is never fulfilled if a task failed once, requeued or not. If an expert is missing run eval refuses.
# - TTT is evaluated on at most --ttt-prompts (48) prompts of each file: the parts add up to a run on all the files where
#   both take all prompts.
# - On nodes of different processors build with `make ARCH=`: the bits are the same.
#
# The trial uses the Slurm that answers (sinfo), or starts one on this machine, with three node daemons and a munged, in a
# temporary folder. A task is killed and requeued, another requeued under way; then one process does the same work, and
# files must be equal, tables add up. Its files stay in test/build/slurm.
set -eu

# The table of several tables of run eval --tsv, of different files: nll, tokens and prompts add up, and so do bytes, which
# are nll / (bpb ln 2). Medians of times do not, they are left out.
add() {
    awk -F '\t' '
        FNR > 1 {
            if (!($1 in tokens)) name[++n] = $1
            nll[$1] += $5; tokens[$1] += $6; prompts[$1] += $7
            active[$1] += $2 * $7
            if ($4 + 0 > 0) bytes[$1] += $5 / $4 # times ln 2; - where a text of ids has no known bytes
        }
        END {
            print "method\tactive\tppl\tbpb\tnll\ttokens\tprompts"
            for (i = 1; i <= n; i++) {
                m = name[i]
                printf "%s\t%.6g\t%.9g\t%s\t%.9g\t%d\t%d\n", m, active[m] / prompts[m], exp(nll[m] / tokens[m]), \
                    (bytes[m] ? sprintf("%.9g", nll[m] / bytes[m]) : "-"), nll[m], tokens[m], prompts[m]
            }
        }' "$@"
}
if [ "${1:-}" = add ]; then
    shift
    add "$@"
    exit
fi

F=test/build/slurm # of the jobs: where all nodes see it
S=                 # of the daemons, if they are our own
jobs=              # to be cancelled if this script ends before them
fail() {
    echo "slurm.sh: $*" >&2
    exit 1
}
soon() { # soon WHAT COMMAND...: wait, ten minutes at most, until the command succeeds
    what=$1 tries=0
    shift
    until "$@" > $F/scrap 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || fail "$what did not happen: $(tail -n 3 $F/scrap)"
        sleep 0.5
    done
}
gone() { # gone JOBS [STATES]: none of them is there, in such a state
    ! squeue -h -j "$1" ${2:+-t "$2"} | grep -q .
}

start() {
    PATH=$PATH:/usr/sbin:/sbin
    for program in munged slurmctld slurmd sbatch; do
        [ "$(command -v $program)" ] && continue
        echo "slurm.sh: no Slurm answers, and to start one here $program is missing: apt-get install slurm-wlm munge" >&2
        exit 3
    done
    S=$(mktemp -d) host=$(uname -n | sed 's/\..*//') user=$(id -un)
    chmod 755 "$S" # munged wants its socket within everybody's reach, its key within nobody's
    (umask 077 && head -c 1024 /dev/urandom > "$S/munge.key")
    munged --key-file="$S/munge.key" --socket="$S/munge.socket" --pid-file="$S/munged.pid" --log-file="$S/munged.log" \
        --seed-file="$S/munge.seed"
    # proctrack/pgid: the default needs cgroups, which a container may not have. cred_expire: until a task is requeued.
    cat > "$S/slurm.conf" << END
ClusterName=trial
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmUser=$user
SlurmdUser=$user
AuthInfo=socket=$S/munge.socket,cred_expire=5
StateSaveLocation=$S/state
SlurmdSpoolDir=$S/%n
SlurmctldPidFile=$S/slurmctld.pid
SlurmdPidFile=$S/%n.pid
SlurmctldLogFile=$S/slurmctld.log
SlurmdLogFile=$S/%n.log
ProctrackType=proctrack/pgid
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SchedulerParameters=batch_sched_delay=0,sched_interval=2
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=26818
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=26819
NodeName=node3 NodeHostname=$host NodeAddr=127.0.0.1 Port=26820
PartitionName=all Nodes=ALL Default=YES
END
    export SLURM_CONF="$S/slurm.conf"
    mkdir "$S/state"
    slurmctld
    for node in node1 node2 node3; do slurmd -N $node; done
    soon "three idle nodes" sh -c 'test "$(sinfo -h -t idle -o %D)" = 3'
}
stop() {
    code=$?
    set +e
    [ "$jobs" ] && scancel $jobs 2> $F/scrap
    if [ "$S" ]; then
        [ "$jobs" ] && soon "the end of all jobs" gone "$(echo $jobs | tr ' ' ,)"
        for pid in $(cat "$S"/slurmctld.pid "$S"/node?.pid "$S"/munged.pid 2> $F/scrap); do
            kill $pid && while kill -0 $pid 2> $F/scrap; do sleep 0.1; done
        done
        cp "$S"/*.log $F
        rm -rf "$S"
    fi
    exit $code
}

rm -rf $F && mkdir -p $F
trap stop EXIT
trap 'exit 130' INT TERM HUP
sinfo > $F/scrap 2>&1 || start
nodes=$(sinfo -h -o %D | awk '{ n += $1 } END { print n }')
echo "$(sinfo --version), $nodes nodes"

export MODEL=$F/model
files="data/test/a*.txt data/test/b*.txt data/test/c*.txt" # eight
./train base $MODEL data/train/*.txt --dim 32 --layers 2 --heads 2 --steps 100 --threads 1 --quiet
./train index $MODEL data/train/*.txt --quiet
./train cluster $MODEL --experts 8 --quiet
cp -r $MODEL $F/alone

batch="sbatch --parsable --requeue --open-mode=append"
experts=$($batch --array=0-7 -o $F/expert-%a.log --wrap \
    'exec ./train experts $MODEL --only $SLURM_ARRAY_TASK_ID --epochs 10 --threads 1')
jobs=$experts
finetune=$($batch -o $F/finetune.log --wrap 'exec ./train finetune $MODEL --epochs 2 --threads 1')
jobs="$jobs $finetune"
eval=$(FILES=$files $batch --array=0-7 -o $F/eval-%a.log -d afterany:$experts:$finetune --wrap \
    'set -- $FILES; shift $SLURM_ARRAY_TASK_ID
    exec ./run eval $MODEL $1 --ttt-prompts 1000 --passes 2 --threads 1 --tsv $MODEL-part-$SLURM_ARRAY_TASK_ID.tsv')
jobs="$jobs $eval"

soon "the training of expert 0" grep -q % $F/expert-0.log
scancel --signal=KILL --batch ${experts}_0
soon "the end of the task that was killed" gone ${experts}_0 running,completing
scontrol requeue ${experts}_0
soon "the training of expert 1" grep -q % $F/expert-1.log
scontrol requeue ${experts}_1
soon "the end of all tasks" gone $experts,$finetune,$eval
jobs=

[ "$(grep -c '^train experts' $F/expert-0.log)" = 2 ] || fail "expert 0 was not killed under way: $F/expert-0.log"
grep -q 'goes on from step' $F/expert-1.log || fail "expert 1 did not go on from a checkpoint: $F/expert-1.log"
./train experts $F/alone --epochs 10 --threads 1 --quiet
./train finetune $F/alone --epochs 2 --threads 1 --quiet
diff -r $MODEL $F/alone || fail "the array's files are others than one process's: $MODEL $F/alone"

./run eval $F/alone $files --ttt-prompts 1000 --passes 2 --threads 1 --quiet --tsv $F/whole.tsv > $F/whole.txt
add $MODEL-part-?.tsv > $F/sum.tsv
awk -F '\t' ' # of 9 printed digits, active of 6
    function differ(a, b, by) { return !(a - b <= by * b && b - a <= by * b) }
    NR == FNR { whole[FNR] = $0; rows = FNR; next }
    FNR > 1 {
        split(whole[FNR], w)
        if ($1 != w[1] || differ($2, w[2], 1e-5) || differ($3, w[3], 1e-8) || differ($4, w[4], 1e-8) ||
            differ($5, w[5], 1e-8) || $6 != w[6] || $7 != w[7]) { print whole[FNR]; print; bad = 1 }
    }
    END { exit bad || rows != 10 || FNR != rows }' $F/whole.tsv $F/sum.tsv || fail "the parts do not add up: $F/sum.tsv"
cat $F/sum.tsv
echo "slurm: 8 experts by 8 tasks on $nodes nodes, one killed and requeued, one requeued under way: the same bits as one process"
