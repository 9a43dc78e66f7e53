// Package provisioner makes a hostPath PersistentVolume, a folder of its own,
// for each claim of its storage class, and removes both when the claim goes.
package provisioner

import (
	"context"
	"errors"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"

	"cytomine-spawner.test/cluster/addon"
)

const (
	provisionerName = "cytomine-spawner.test/hostpath"
	madeBy          = "pv.kubernetes.io/provisioned-by"
)

type provisioner struct {
	client  kubernetes.Interface
	dir     string
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
}

// Main is the program hostpath-provisioner.
func Main() int {
	fs, kubeconfig := addon.Flags("hostpath-provisioner")
	dir := fs.String("dir", "", "folder for the volumes")
	_ = fs.Parse(os.Args[1:])
	if *dir == "" {
		return addon.Fail("hostpath-provisioner: --dir is required")
	}
	ctx, stop, client, f, err := addon.Connect(*kubeconfig)
	if err != nil {
		return addon.Fail(err)
	}
	defer stop()
	claims, volumes, classes := f.Core().V1().PersistentVolumeClaims(), f.Core().V1().PersistentVolumes(), f.Storage().V1().StorageClasses()
	p := &provisioner{client, *dir, claims.Lister(), volumes.Lister(), classes.Lister()}
	bell, err := addon.NewBell(claims.Informer(), volumes.Informer(), classes.Informer())
	if err != nil {
		return addon.Fail(err)
	}
	f.Start(ctx.Done())
	f.WaitForCacheSync(ctx.Done())
	return bell.Rounds(ctx, 20*time.Millisecond, func() error { return errors.Join(p.make(ctx), p.remove(ctx)) })
}

func (p *provisioner) make(ctx context.Context) error {
	claims, err := p.claims.List(labels.Everything())
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range claims {
		if c.Spec.VolumeName != "" || c.Spec.StorageClassName == nil || c.DeletionTimestamp != nil {
			continue
		}
		class, err := p.classes.Get(*c.Spec.StorageClassName)
		if err != nil || class.Provisioner != provisionerName {
			continue
		}
		waits := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
		if waits && c.Annotations["volume.kubernetes.io/selected-node"] == "" {
			continue
		}
		name := "pvc-" + string(c.UID)
		if _, err := p.volumes.Get(name); err == nil {
			continue
		}
		path := filepath.Join(p.dir, name)
		if err := os.MkdirAll(path, 0o777); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.Chmod(path, 0o777); err != nil { // pods of any user write here, whatever the umask
			errs = append(errs, err)
			continue
		}
		_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, volume(name, path, c, class), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) { // the informer may lag behind our own write
			errs = append(errs, err)
			continue
		}
		log.Printf("made %s for %s/%s", name, c.Namespace, c.Name)
	}
	return errors.Join(errs...)
}

func volume(name, path string, c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) *corev1.PersistentVolume {
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{madeBy: provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: c.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   c.Spec.AccessModes,
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: reclaim,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}},
			ClaimRef:                      &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID},
		},
	}
}

func (p *provisioner) remove(ctx context.Context) error {
	volumes, err := p.volumes.List(labels.Everything())
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range volumes {
		if v.Annotations[madeBy] != provisionerName || v.Status.Phase != corev1.VolumeReleased ||
			v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || v.DeletionTimestamp != nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(p.dir, v.Name)); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := p.client.CoreV1().PersistentVolumes().Delete(ctx, v.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
			continue
		}
		log.Printf("removed %s", v.Name)
	}
	return errors.Join(errs...)
}
