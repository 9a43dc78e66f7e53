#!/bin/sh
# Moves notebooks' homes and stacks of a release into a namespace of their own: see docs/administrators, "A release from before: to move".
#
#   sh move-users.sh FROM TO RELEASE [FOLDER]
#
# FROM is the namespace of the release, TO the one that there is for its users. What is moved is written down in FOLDER
# first (move-users-FROM unless given): with the same one the script goes on where it was cut. No volume is copied.
set -eu

from=$1 to=$2 release=$3 folder=${4:-move-users-$1}
mkdir -p "$folder"
stacks=cytominestacks.cytomine-spawner.org
claims="cytomine-spawner.org/hub=$release app.kubernetes.io/managed-by=cytomine-stacks"
part="app.kubernetes.io/name=cytomine-hub,app.kubernetes.io/instance=$release,app.kubernetes.io/component"

say() { echo "$*" >&2; }
# One field of an object of the first namespace, as JSON where it is more than a text.
field() { kubectl -n "$from" get "$1" "$2" -o jsonpath="$3"; }
nothing='{}'
# What is read becomes a file of that name, whole and readable as an object, or the script ends before anything is deleted.
keep() {
    cat > "$folder/checked.new"
    kubectl create --dry-run=client --validate=false -f "$folder/checked.new" -o name > /dev/null
    mv "$folder/checked.new" "$folder/$1"
}

# Lists are read into a variable first: a failure ends the script, where in a loop's head it would be an empty list.
stop() {
    deployments=$(kubectl -n "$from" get deployments -l "$1" -o name)
    for deployment in $deployments; do
        kubectl -n "$from" scale "$deployment" --replicas=0
    done
    for _ in $(seq 90); do
        pods=$(kubectl -n "$from" get pods -l "$1" -o name)
        [ -n "$pods" ] || return 0
        sleep 2
    done
    say "Pods with $1 do not end in $from."
    exit 1
}

kubectl get namespace "$to" >/dev/null
if [ "$from" = "$to" ]; then
    say "FROM and TO are the same namespace."
    exit 2
fi

# Nobody starts anything from here on.
stop "$part=hub"
kubectl -n "$from" delete pods -l "cytomine-spawner.org/hub=$release" --timeout=180s

# The stacks as they are, then their deletion by the service, which leaves the volumes.
names=$(kubectl get crd "$stacks" --ignore-not-found -o name)
if [ -n "$names" ]; then
    names=$(kubectl -n "$from" get "$stacks" -o jsonpath='{.items[*].metadata.name}')
fi
for name in $names; do
    say "stack $name"
    labels=$(field "$stacks" "$name" '{.metadata.labels}')
    spec=$(field "$stacks" "$name" '{.spec}')
    printf '{"apiVersion":"cytomine-spawner.org/v1alpha1","kind":"CytomineStack","metadata":{"name":"%s","namespace":"%s","labels":%s},"spec":%s}\n' \
        "$name" "$to" "${labels:-$nothing}" "$spec" > "$folder/stack.new"
    keep "stack-$name.json" < "$folder/stack.new"
    kubectl -n "$from" patch "$stacks" "$name" --type=merge -p '{"spec":{"keepData":true}}'
done
# shellcheck disable=SC2086 # several names
[ -z "$names" ] || kubectl -n "$from" delete "$stacks" $names --timeout=300s
stop "$part=stacks"

# The claims as they are; their volumes are kept whatever becomes of the claims.
for selector in $claims; do
    names=$(kubectl -n "$from" get pvc -l "$selector" -o jsonpath='{.items[*].metadata.name}')
    for name in $names; do
        volume=$(field pvc "$name" '{.spec.volumeName}')
        if [ -z "$volume" ]; then
            say "claim $name has no volume yet: it is left where it is"
            continue
        fi
        say "claim $name on $volume"
        if [ ! -f "$folder/policy-$name" ]; then
            kubectl get pv "$volume" -o jsonpath='{.spec.persistentVolumeReclaimPolicy}' > "$folder/policy.new"
            mv "$folder/policy.new" "$folder/policy-$name"
        fi
        kubectl patch pv "$volume" --type=merge -p '{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}'
        labels=$(field pvc "$name" '{.metadata.labels}')
        notes=$(field pvc "$name" '{.metadata.annotations}')
        modes=$(field pvc "$name" '{.spec.accessModes}')
        resources=$(field pvc "$name" '{.spec.resources}')
        class=$(field pvc "$name" '{.spec.storageClassName}')
        mode=$(field pvc "$name" '{.spec.volumeMode}')
        printf '{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"%s","namespace":"%s","labels":%s,"annotations":%s},"spec":{"accessModes":%s,"resources":%s,"storageClassName":"%s","volumeMode":"%s","volumeName":"%s"}}\n' \
            "$name" "$to" "${labels:-$nothing}" "${notes:-$nothing}" "$modes" "$resources" "$class" "$mode" "$volume" \
            > "$folder/claim.new"
        # By these Kubernetes knows claims that are bound.
        kubectl annotate --local --overwrite -f "$folder/claim.new" -o json \
            pv.kubernetes.io/bind-completed- pv.kubernetes.io/bound-by-controller- volume.kubernetes.io/selected-node- \
            > "$folder/claim.clean"
        keep "claim-$name.json" < "$folder/claim.clean"
    done
done

# The same volumes, claimed from the other namespace.
for file in "$folder"/claim-*.json; do
    [ -f "$file" ] || continue
    name=$(basename "$file" .json)
    name=${name#claim-}
    phase=$(kubectl -n "$to" get pvc "$name" --ignore-not-found -o jsonpath='{.status.phase}')
    if [ "$phase" != Bound ]; then
        volume=$(kubectl create --dry-run=client -f "$file" -o jsonpath='{.spec.volumeName}')
        kubectl -n "$from" delete pvc "$name" --ignore-not-found --timeout=120s
        kubectl patch pv "$volume" --type=merge -p \
            '{"spec":{"claimRef":{"namespace":"'"$to"'","name":"'"$name"'","uid":null,"resourceVersion":null}}}'
        kubectl apply --server-side --force-conflicts -f "$file"
        kubectl -n "$to" wait pvc "$name" --for=jsonpath='{.status.phase}'=Bound --timeout=120s
    fi
    volume=$(kubectl -n "$to" get pvc "$name" -o jsonpath='{.spec.volumeName}')
    kubectl patch pv "$volume" --type=merge -p '{"spec":{"persistentVolumeReclaimPolicy":"'"$(cat "$folder/policy-$name")"'"}}'
done

# The stacks, asleep: who opens one wakes it up.
for file in "$folder"/stack-*.json; do
    [ -f "$file" ] || continue
    name=$(basename "$file" .json)
    name=${name#stack-}
    there=$(kubectl -n "$to" get "$stacks" "$name" --ignore-not-found -o name)
    if [ -z "$there" ]; then
        kubectl patch --local --type=merge -f "$file" -p '{"spec":{"keepData":false,"desiredState":"Hibernated"}}' -o json \
            | kubectl apply --server-side --force-conflicts -f -
    fi
done
say "Moved. Now run helm upgrade with users.namespace=$to; $folder can be deleted when all is well."
