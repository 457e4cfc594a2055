"""Field names of KubeRay's public API `ray.io/v1` (reference of KubeRay 1.7), as far as our files could use them."""

CLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"),
    *("headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs"),
}
AUTH = {"mode", "secretName", "enableK8sTokenAuth"}
HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
WORKERS = {
    *("groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams"),
    *("replicas", "resources", "scaleStrategy", "suspend", "template"),
}
JOB = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "jobId"),
    *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "managedBy", "metadata", "rayClusterSpec"),
    *("runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate"),
    *("suspend", "ttlSecondsAfterFinished"),
}
SERVICE = {
    *("deploymentUnhealthySecondThreshold", "excludeHeadPodFromServeSvc", "rayClusterConfig", "serveConfigV2"),
    *("rayClusterDeletionDelaySeconds", "serveService", "serviceUnhealthySecondThreshold", "upgradeStrategy"),
}
UPGRADES = {"None", "NewCluster", "NewClusterWithIncrementalUpgrade"}
